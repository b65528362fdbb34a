"""Sealing: every event is billed exactly once, whatever comes when, and no sealed total ever changes."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import grpc
import pytest
from slow_link import SlowLink
from usage_harness import Client, event, totals, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from services.kit.channel import open_channel
from services.kit.ids import new_id
from services.usage.__main__ import build_server
from services.usage.settings import Settings

pytestmark = pytest.mark.usefixtures("meters", "worker")

JULY, AUGUST, SEPTEMBER = utc(2026, 7, 1), utc(2026, 8, 1), utc(2026, 9, 1)


def test_a_seal_freezes_what_was_used_and_what_is_late_belongs_to_it(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*[event(customer, time=utc(2026, 7, day), quantities={"bytes": "10"}) for day in (1, 2, 31)])
    client.ingest(event(customer, time=AUGUST, quantities={"bytes": "1000"}))

    july = client.seal(customer, JULY, AUGUST)
    assert totals(july) == {"requests": 3, "bytes": 30}

    assert client.outcomes(event(customer, time=utc(2026, 7, 15), quantities={"bytes": "5"})) == ["ACCEPTED"]
    # Usage as such has it; the seal has not.
    assert client.total(customer, "bytes", JULY, AUGUST) == 35
    assert totals(client.seal(customer, JULY, AUGUST)) == {"requests": 3, "bytes": 30}

    august = client.seal(customer, AUGUST, SEPTEMBER)
    assert totals(august) == {"requests": 1, "bytes": 1000}
    (late,) = august.late_usage
    assert late.period_end_time.ToDatetime() == AUGUST.replace(tzinfo=None)
    # Sealed and late together: 30 + 5, and 3 + 1 events.
    assert totals(late) == {"requests": 4, "bytes": 35}


def test_a_seal_says_what_made_its_totals(client: Client) -> None:
    customer = client.put_customer()
    first, second, third = (uuid4().hex for _ in range(3))
    for time, trace in ((utc(2026, 7, 2, 9), first), (utc(2026, 7, 2, 10), second), (utc(2026, 7, 3), third)):
        client.ingest(event(customer, time=time, quantities={"bytes": "1"}, trace_id=trace))

    seal = client.seal(customer, JULY, AUGUST)

    (requests,) = [total for total in seal.totals if total.meter == "requests"]
    assert (requests.event_type, requests.unit, requests.event_count) == ("http.request", "requests", 3)
    # One a day at the most.
    assert list(requests.sample_trace_ids) == [first, third]


def test_a_part_of_a_day_has_a_trace_too(client: Client) -> None:
    customer = client.put_customer()
    noon = utc(2026, 7, 2, 12)
    before, after = (uuid4().hex for _ in range(2))
    client.ingest(event(customer, time=noon - timedelta(hours=1), trace_id=before))
    client.ingest(event(customer, time=noon + timedelta(hours=1), trace_id=after))

    for start, end, trace in ((JULY, noon, before), (noon, AUGUST, after)):
        (requests,) = [total for total in client.seal(customer, start, end).totals if total.meter == "requests"]
        assert list(requests.sample_trace_ids) == [trace]


def test_the_same_request_gets_the_first_answer(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer, time=utc(2026, 7, 1)))
    first = client.seal(customer, JULY, AUGUST, request_id="one")

    assert client.seal(customer, JULY, AUGUST, request_id="one") == first
    with pytest.raises(grpc.RpcError) as caught:
        client.seal(customer, AUGUST, SEPTEMBER, request_id="one")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_request_id_of_another_seal_seals_nothing(client: Client) -> None:
    first, other = client.put_customer(), client.put_customer()
    client.seal(first, JULY, AUGUST, request_id="two")
    with pytest.raises(grpc.RpcError) as caught:
        client.seal(other, JULY, AUGUST, request_id="two")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS

    # Nothing is late for the other: no seal is there that nobody was billed for.
    client.ingest(event(other, time=utc(2026, 7, 2)), event(other, time=utc(2026, 8, 2)))
    assert totals(client.seal(other, AUGUST, SEPTEMBER)) == {"requests": 2, "bytes": 0}


def test_a_seal_tells_of_what_is_still_held(client: Client) -> None:
    customer = client.put_customer(keys=["held-key"])
    client.ingest(
        event("held-key", type="unheard.of", time=utc(2026, 7, 9)),
        event(customer, type="unheard.of", time=utc(2026, 7, 9)),
        event(customer, type="unheard.of", time=utc(2026, 8, 9)),
    )

    assert client.seal(customer, JULY, AUGUST).quarantined_events == 2


def test_what_was_before_the_first_period_is_billed_with_it(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer, time=utc(2026, 6, 20)), event(customer, time=utc(2026, 7, 2)))

    assert totals(client.seal(customer, JULY, AUGUST))["requests"] == 2


def test_a_period_may_end_within_a_quarter_of_an_hour(client: Client) -> None:
    customer = client.put_customer()
    end = utc(2026, 7, 10, 10, 7, 30)
    client.ingest(*[event(customer, time=end + timedelta(seconds=seconds)) for seconds in (-30, -1, 0, 30)])

    assert totals(client.seal(customer, JULY, end))["requests"] == 2
    assert totals(client.seal(customer, end, AUGUST))["requests"] == 2


def test_an_earlier_end_behind_a_later_one_has_nothing_left(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(event(customer, time=utc(2026, 7, 2)), event(customer, time=utc(2026, 8, 2)))
    assert totals(client.seal(customer, JULY, SEPTEMBER))["requests"] == 2

    assert totals(client.seal(customer, JULY, AUGUST)) == {}


@pytest.mark.parametrize(
    ("customer", "start", "end", "code"),
    [
        ("cus_x", JULY, AUGUST, grpc.StatusCode.NOT_FOUND),
        ("", JULY, AUGUST, grpc.StatusCode.INVALID_ARGUMENT),
        ("cus_x", AUGUST, JULY, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_seal_of_nothing(
    client: Client, customer: str, start: datetime, end: datetime, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.seal(customer, start, end)
    assert caught.value.code() is code


@pytest.fixture
def slow_client(migrated: Settings) -> Iterator[Client]:
    """A client of a server whose transactions pause between their steps."""
    link = SlowLink(migrated.database_url, longest_pause=0.04)
    server = build_server(replace(migrated, database_url=link.url))
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        yield Client.on(channel)
    server.stop()
    link.close()


class Producer(threading.Thread):
    """Sends a customer's events of random times, some of them twice, until it is told to stop."""

    def __init__(self, client: Client, customers: list[str], seed: int) -> None:
        super().__init__()
        self.accepted: Counter[str] = Counter()
        self.stopping = threading.Event()
        self._client = client
        self._customers = customers
        self._random = random.Random(seed)
        self._sent: list[events_pb.Event] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            batch = [self._event() for _ in range(self._random.randint(5, 30))]
            for sent, result in zip(batch, self._client.ingest(*batch).results, strict=True):
                if result.outcome == events_pb.OUTCOME_ACCEPTED:
                    self.accepted[sent.customer_id] += int(sent.quantities["bytes"].value)
            self._sent += batch

    def _event(self) -> events_pb.Event:
        if self._sent and self._random.random() < 0.2:
            return self._random.choice(self._sent)
        time = JULY + timedelta(seconds=self._random.randrange(10 * 86_400))
        number = str(self._random.randrange(1, 1_000))
        return event(self._random.choice(self._customers), id=new_id("e"), time=time, quantities={"bytes": number})


@pytest.mark.parametrize("seed", [1, 2])
def test_every_event_is_billed_exactly_once(client: Client, slow_client: Client, seed: int) -> None:
    """Six producers send, with pauses between the steps of their transactions, while periods are sealed at random."""
    customers = [client.put_customer() for _ in range(2)]
    choose = random.Random(seed)
    # In order, as bill runs do it, but for one end that is sealed behind the later ones.
    days = [*(day for day in range(1, 10) if day != (skipped := choose.randrange(2, 9))), skipped]
    ends = [(customer, JULY + timedelta(days=day)) for day in days for customer in customers]
    producers = [Producer(slow_client, customers, seed * 10 + n) for n in range(6)]
    for producer in producers:
        producer.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            seals = dict(zip(ends, pool.map(lambda end: client.seal(end[0], JULY, end[1]), ends), strict=True))
    finally:
        for producer in producers:
            producer.stopping.set()
        for producer in producers:
            producer.join()

    for customer in customers:
        last = client.seal(customer, JULY, AUGUST)
        late = {each.period_end_time.ToDatetime(): totals(each)["bytes"] for each in last.late_usage}
        billed = totals(last).get("bytes", Decimal(0))
        for (owner, end), seal in seals.items():
            if owner == customer:
                # No sealed total has changed since, and late usage includes it.
                assert totals(client.seal(customer, JULY, end)) == totals(seal)
                billed += late.get(end.replace(tzinfo=None), totals(seal).get("bytes", Decimal(0)))
        assert billed == sum(producer.accepted[customer] for producer in producers)
