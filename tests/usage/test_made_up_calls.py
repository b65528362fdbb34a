"""A month of made-up calls, some rows spoilt: what is counted is what the generator says that it made."""

import io
from collections import Counter, defaultdict
from decimal import Decimal

import grpc
import pytest
from calling import ANSWERED_OUTBOUND, Caller, by_country, counts
from usage_harness import Client, utc

from examples.calls.made_up_calls import HEADER, SPOILT, MadeUpCall, calls, write
from meterscope.callimport import create_meters
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from services.kit.worker import Worker

SEED, COUNT, MALFORMED, CUSTOMERS = 11, 3_000, 0.03, 5
MONTH = (utc(2026, 10, 1), utc(2026, 11, 1))
COLUMNS = {"callee": "callee", "start_time": "start_time", "duration": "duration", "disposition": "disposition"}


@pytest.fixture(scope="module")
def made() -> list[MadeUpCall]:
    return list(calls(SEED, COUNT, malformed=MALFORMED, customers=CUSTOMERS))


@pytest.fixture(scope="module")
def text(made: list[MadeUpCall]) -> str:
    file = io.StringIO(newline="")
    write(iter(made), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def client(channel: grpc.Channel) -> Client:
    """With the meters that the command makes, and one that counts a part."""
    create_meters(channel)
    client = Client.on(channel)
    client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=ANSWERED_OUTBOUND))
    return client


@pytest.fixture(scope="module")
def customers(client: Client) -> dict[str, str]:
    """Ids by key."""
    keys = [f"made-up-{number}" for number in range(1, CUSTOMERS + 1)]
    return {key: client.put_customer(keys=[key]) for key in keys}


def test_the_generator_makes_the_same_calls_again_and_spoils_the_stated_share(made: list[MadeUpCall]) -> None:
    assert list(calls(SEED, COUNT, malformed=MALFORMED, customers=CUSTOMERS)) == made
    spoilt = Counter(call.spoilt for call in made if call.spoilt)
    assert set(spoilt) == set(SPOILT)
    # 3 % of 3,000 are 90; four standard deviations of such a draw are 37.
    assert abs(spoilt.total() - COUNT * MALFORMED) < 37
    assert len({call.row[0] for call in made}) == COUNT
    assert all(call.row[HEADER.index("call_type")] == call.call_type for call in made if call.spoilt != "columns")


def test_a_month_is_counted_by_customer_and_destination(
    made: list[MadeUpCall],
    text: str,
    channel: grpc.Channel,
    client: Client,
    customers: dict[str, str],
    worker: Worker,  # noqa: ARG001 - it rolls up
) -> None:
    caller = Caller(channel)
    answer = caller.send(text, chunk=10_007)
    good = [call for call in made if not call.spoilt]
    bad = [call for call in made if call.spoilt]
    assert answer.rows == COUNT
    assert counts(answer) == (len(good), 0, 0, 0, len(bad))
    # Line 1 is the header, so call 0 is on line 2.
    assert [(problem.line, problem.column) for problem in answer.problems] == [
        (call.number + 2, COLUMNS.get(call.spoilt, "")) for call in bad
    ]
    to = Counter(call.country for call in good)
    seconds: Counter[str] = Counter()
    for call in good:
        seconds[call.country] += call.billable
    assert {each.country: (each.calls, int(each.billable_seconds.value)) for each in answer.destinations} == {
        country: (count, seconds[country]) for country, count in to.items()
    }
    per_customer: dict[str, list[MadeUpCall]] = defaultdict(list)
    for call in good:
        per_customer[call.customer].append(call)
    for key, customer in customers.items():
        mine = per_customer[key]
        assert client.total(customer, "calls", *MONTH) == len(mine)
        assert client.total(customer, "call_seconds", *MONTH) == sum(Decimal(call.billable) for call in mine)
        outward = [call for call in mine if call.call_type in {"outbound", "toll_free"}]
        assert client.total(customer, "answered_outbound", *MONTH) == sum(call.billable > 0 for call in outward)
        # The breakdown by destination: calls and seconds to each country, those of extensions without one.
        assert by_country(client, customer, "calls", *MONTH) == Counter(call.country for call in mine)
        to_country: Counter[str] = Counter()
        for call in mine:
            to_country[call.country] += call.billable
        assert by_country(client, customer, "call_seconds", *MONTH) == to_country
    key, customer = next(iter(customers.items()))
    listed = caller.calls(customer, country="GB")
    assert sorted(call.id for call in listed) == sorted(
        call.row[0] for call in per_customer[key] if call.country == "GB"
    )
    again = caller.send(text)
    assert counts(again) == (0, len(good), 0, 0, len(bad))
    assert client.total(customer, "calls", *MONTH) == len(per_customer[key])
