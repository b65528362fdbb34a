"""Amending and cancelling: both events are kept, each is corrected once, and totals follow."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import grpc
import psycopg
import pytest
import sqlalchemy as sa
from eventually import eventually
from usage_harness import SOURCE, Client, amend, caller_in, cancel, event, totals, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb
from services.usage.store import places
from services.usage.usecases import corrections

pytestmark = pytest.mark.usefixtures("meters", "worker")

Sql = psycopg.Connection[tuple[Any, ...]]

JULY, AUGUST, SEPTEMBER = utc(2026, 7, 1), utc(2026, 8, 1), utc(2026, 9, 1)
ACTIVE, AMENDED, CANCELLED = (
    events_pb.EVENT_STATE_ACTIVE,
    events_pb.EVENT_STATE_AMENDED,
    events_pb.EVENT_STATE_CANCELLED,
)


def bytes_of(customer: str, number: int, **more: Any) -> events_pb.Event:
    return event(customer, quantities={"bytes": str(number)}, **more)


def get(client: Client, wanted: events_pb.Event) -> events_pb.Event:
    request = events_pb.GetEventRequest(customer_id=wanted.customer_id, event_id=wanted.id, source=wanted.source)
    return client.events.GetEvent(request)


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def test_an_amended_event_is_kept_and_the_superseding_one_counts(client: Client) -> None:
    customer = client.put_customer()
    wrong, right = bytes_of(customer, 100), bytes_of(customer, 7, source="desk")
    client.ingest(wrong, bytes_of(customer, 1))
    assert client.total(customer, "bytes") == 101

    answer = amend(client, wrong, right, reason="typed a 100 for a 7")

    assert (answer.state, answer.correction_reason) == (AMENDED, "typed a 100 for a 7")
    assert (answer.superseded_by.id, answer.superseded_by.source) == (right.id, "desk")
    assert get(client, wrong) == answer
    stored = get(client, right)
    assert (stored.state, stored.supersedes.id, stored.supersedes.source) == (ACTIVE, wrong.id, SOURCE)
    # 1 and 7 count, of two events.
    assert client.total(customer, "bytes") == 8
    assert client.total(customer, "requests") == 2


def test_a_cancelled_event_counts_no_more(client: Client) -> None:
    customer = client.put_customer()
    wrong = bytes_of(customer, 100)
    client.ingest(wrong, bytes_of(customer, 1))

    answer = cancel(client, wrong, reason="sent by a test")

    assert (answer.state, answer.correction_reason) == (CANCELLED, "sent by a test")
    assert not answer.HasField("superseded_by")
    assert client.total(customer, "bytes") == 1
    assert client.total(customer, "requests") == 1
    # Its identity stays: sent again it is what it was, a duplicate.
    assert client.outcomes(wrong) == ["DUPLICATE"]
    assert client.total(customer, "bytes") == 1


def test_a_bucket_whose_last_event_is_cancelled_is_gone(client: Client, sql: Sql) -> None:
    customer = client.put_customer(limits={"bytes": "1000"})
    alone = bytes_of(customer, 5)
    client.ingest(alone)
    assert client.total(customer, "bytes") == 5

    cancel(client, alone)

    answer = client.query(customer, "bytes", utc(2026, 1, 1), utc(2027, 6, 1))
    assert (list(answer.windows), answer.total.value) == ([], "0")
    eventually(lambda: client.check(customer, "bytes").used.value == "0")
    left = "SELECT FROM bucket_totals JOIN customers ON number = customer WHERE customers.id = %s"
    assert sql.execute(left, [customer]).fetchall() == []


def test_a_chain_of_amendments_counts_its_last_event(client: Client) -> None:
    customer = client.put_customer()
    chain = [bytes_of(customer, number, time=JULY + timedelta(hours=number)) for number in (1, 2, 3)]
    client.ingest(chain[0])
    for old, new in itertools.pairwise(chain):
        amend(client, old, new)

    assert client.total(customer, "bytes") == 3
    middle = get(client, chain[1])
    assert (middle.state, middle.supersedes.id, middle.superseded_by.id) == (AMENDED, chain[0].id, chain[2].id)
    cancel(client, chain[2])
    assert client.total(customer, "bytes") == 0
    assert client.total(customer, "requests") == 0


def test_an_amendment_may_move_usage_to_another_time(client: Client) -> None:
    customer = client.put_customer()
    wrong, right = bytes_of(customer, 10, time=utc(2026, 6, 30)), bytes_of(customer, 10, time=utc(2026, 7, 1))
    client.ingest(wrong, bytes_of(customer, 1, time=utc(2026, 6, 30)))
    amend(client, wrong, right)

    days = client.query(customer, "bytes", utc(2026, 6, 30), utc(2026, 7, 2), window=usage_pb.WINDOW_DAY)
    assert [window.value.value for window in days.windows] == ["1", "10"]


def test_the_same_correction_again_is_answered_the_same(client: Client, sql: Sql) -> None:
    customer = client.put_customer()
    wrong, right, gone = bytes_of(customer, 100), bytes_of(customer, 7), bytes_of(customer, 3)
    client.ingest(wrong, gone)

    assert amend(client, wrong, right, reason="one") == amend(client, wrong, right, reason="two")
    assert cancel(client, gone, reason="one") == cancel(client, gone, reason="two")
    assert client.total(customer, "bytes") == 7
    (count,) = sql.execute(
        "SELECT count(*) FROM corrections JOIN customers ON number = customer WHERE customers.id = %s", [customer]
    ).fetchall()
    assert count == (2,)


def test_a_request_id_stands_for_one_request(client: Client) -> None:
    customer = client.put_customer()
    one, two = bytes_of(customer, 1), bytes_of(customer, 2)
    client.ingest(one, two)
    first = cancel(client, one, request_id="cancel-1")

    assert cancel(client, one, request_id="cancel-1") == first
    code, _ = refusal(lambda: cancel(client, two, request_id="cancel-1"))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert client.total(customer, "bytes") == 2


def test_another_correction_of_a_corrected_event_is_refused(client: Client) -> None:
    customer = client.put_customer()
    wrong, right, other, gone = (bytes_of(customer, number) for number in (100, 7, 8, 3))
    client.ingest(wrong, gone)
    amend(client, wrong, right)
    cancel(client, gone)

    changed = events_pb.Event()
    changed.CopyFrom(right)
    changed.quantities["bytes"].value = "9"
    for again in (
        lambda: amend(client, wrong, other),
        lambda: amend(client, wrong, changed),
        lambda: cancel(client, wrong),
        lambda: amend(client, gone, other),
    ):
        code, details = refusal(again)
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "amended by event" in details or "cancelled" in details
    assert client.total(customer, "bytes") == 7
    # Nothing of what was refused is stored.
    assert client.outcomes(other) == ["ACCEPTED"]


def test_of_concurrent_corrections_exactly_one_wins(client: Client) -> None:
    customer = client.put_customer()
    for _ in range(5):
        wrong = bytes_of(customer, 1000)
        client.ingest(wrong)
        rights = [bytes_of(customer, number) for number in range(1, 7)]

        def correct(right: events_pb.Event, wrong: events_pb.Event = wrong) -> grpc.StatusCode:
            try:
                amend(client, wrong, right) if right.quantities["bytes"].value != "6" else cancel(client, wrong)
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        with ThreadPoolExecutor(6) as pool:
            codes = list(pool.map(correct, rights))
        assert sorted(codes, key=str) == [grpc.StatusCode.FAILED_PRECONDITION] * 5 + [grpc.StatusCode.OK]
        (winner,) = [right for right, code in zip(rights, codes, strict=True) if code is grpc.StatusCode.OK]
        left = winner if winner.quantities["bytes"].value != "6" else None
        assert client.total(customer, "bytes") == (int(left.quantities["bytes"].value) if left else 0)
        if left:
            cancel(client, left)


def test_a_superseding_event_must_be_new(client: Client) -> None:
    customer = client.put_customer()
    wrong, stored = bytes_of(customer, 100), bytes_of(customer, 7)
    client.ingest(wrong, stored)
    other = events_pb.Event()
    other.CopyFrom(stored)
    other.quantities["bytes"].value = "8"

    for right in (stored, other):
        code, details = refusal(lambda right=right: amend(client, wrong, right))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "stored already" in details
    assert get(client, wrong).state == ACTIVE
    assert client.total(customer, "bytes") == 107


def test_what_is_wrong_with_a_correction_is_named(client: Client) -> None:
    customer, other = client.put_customer(keys=["k-own"]), client.put_customer(keys=["k-other"])
    wrong = bytes_of(customer, 1)
    client.ingest(wrong)
    invalid, not_found = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    failed = grpc.StatusCode.FAILED_PRECONDITION
    nameless = event(customer)
    nameless.customer_id = ""
    for right, code, words in (
        (event(other), invalid, "event.customer_id"),
        (event("k-other"), invalid, "event.customer_key"),
        (event("k-unknown"), invalid, "event.customer_key"),
        (event(customer, id=wrong.id), invalid, "event.id"),
        (event(customer, id=""), invalid, "event.id"),
        (event(customer, id="a\0b"), invalid, "event.id"),
        (event(customer, source="x" * 257), invalid, "event.source"),
        (event(customer, quantities={"bytes": "NaN"}), invalid, "event.quantities.bytes"),
        (event(customer, quantities={"bytes": "9" * 29}), invalid, "event.quantities.bytes"),
        (event(customer, quantities={"bytes": "-1"}), invalid, "event.quantities.bytes"),
        (event(customer, attributes={"a": "\0"}), invalid, "event.attributes.a"),
        (event(customer, time=utc(9999, 1, 1)), invalid, "event.time"),
        (event(customer, time=utc(1999, 1, 1)), invalid, "event.time"),
        (event(customer, trace_id="x"), invalid, "event.trace_id"),
        (event(customer, type="no.such.type"), failed, "event.type"),
    ):
        got, details = refusal(lambda right=right: amend(client, wrong, right))
        assert (got, words in details) == (code, True), details
    for request, code, words in (
        ({"customer_id": "cus_none"}, not_found, "cus_none"),
        ({"event_id": "none"}, not_found, "'none'"),
        ({"source": "elsewhere"}, not_found, "'elsewhere'"),
        ({"customer_id": ""}, invalid, "customer_id"),
        ({"event_id": ""}, invalid, "event_id"),
        ({"source": ""}, invalid, "source"),
        ({"event_id": "a\0b"}, invalid, "event_id"),
        ({"reason": "x" * 257}, invalid, "reason"),
        ({"reason": "\0"}, invalid, "reason"),
        ({"request_id": "x" * 257}, invalid, "request_id"),
    ):
        fields = {"customer_id": customer, "event_id": wrong.id, "source": wrong.source} | request
        for call in (
            lambda fields=fields: client.events.CancelEvent(events_pb.CancelEventRequest(**fields)),
            lambda fields=fields: client.events.AmendEvent(
                events_pb.AmendEventRequest(**fields, event=event(fields["customer_id"] or customer))
            ),
        ):
            got, details = refusal(call)
            assert (got, words in details) == (code, True), details
    unset = events_pb.AmendEventRequest(customer_id=customer, event_id=wrong.id, source=wrong.source)
    assert refusal(lambda: client.events.AmendEvent(unset))[0] is invalid
    assert get(client, wrong).state == ACTIVE
    # By its own key, or by none, the customer is the right one.
    assert amend(client, wrong, event("k-own", id="by-key")).state == AMENDED
    keyed = events_pb.Event()
    keyed.CopyFrom(event(customer, id="by-key"))
    assert amend(client, keyed, nameless).state == AMENDED


def test_events_below_the_raw_floor_are_not_corrected(client: Client, sql: Sql) -> None:
    customer = client.put_customer()
    old, new, known = (bytes_of(customer, 1, time=utc(2026, month, 3)) for month in (1, 3, 1))
    client.ingest(old, new, known)
    cancel(client, known)
    ((before,),) = sql.execute("SELECT time FROM floors WHERE name = 'raw'").fetchall() or [(None,)]
    sql.execute("INSERT INTO floors VALUES ('raw', '2026-02-01') ON CONFLICT (name) DO UPDATE SET time = excluded.time")
    try:
        code, details = refusal(lambda: cancel(client, old))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "2026-02-01" in details
        assert refusal(lambda: amend(client, old, bytes_of(customer, 2)))[0] is grpc.StatusCode.FAILED_PRECONDITION
        assert cancel(client, new).state == CANCELLED
        # What was corrected before is answered as then.
        assert cancel(client, known).state == CANCELLED
    finally:
        sql.execute("DELETE FROM floors WHERE name = 'raw'")
        if before is not None:
            sql.execute("INSERT INTO floors VALUES ('raw', %s)", [before])


def test_the_call_s_trace_is_the_superseding_event_s(client: Client) -> None:
    customer = client.put_customer()
    wrong, right = bytes_of(customer, 1), bytes_of(customer, 2)
    client.ingest(wrong)
    with caller_in("4bf92f3577b34da6a3ce929d0e0e4736"):
        amend(client, wrong, right)
    assert get(client, right).trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


def states(client: Client, customer: str, state: events_pb.EventState.ValueType, page_size: int = 2) -> list[str]:
    """Ids of a customer's events in a state, by pages."""
    found: list[str] = []
    token = ""
    while True:
        page = client.events.ListEvents(
            events_pb.ListEventsRequest(customer_id=customer, state=state, page_size=page_size, page_token=token)
        )
        assert all(state in (events_pb.EVENT_STATE_UNSPECIFIED, each.state) for each in page.events)
        found += [each.id for each in page.events]
        token = page.next_page_token
        if not token:
            return found


def test_events_are_listed_by_state(client: Client) -> None:
    customer = client.put_customer()
    sent = [bytes_of(customer, n, id=f"s{n:02}", time=JULY + timedelta(minutes=n)) for n in range(12)]
    client.ingest(*sent)
    for n in (1, 4, 7):
        amend(client, sent[n], bytes_of(customer, n, id=f"r{n:02}", time=JULY + timedelta(hours=1, minutes=n)))
    for n in (2, 5, 8, 11):
        cancel(client, sent[n])

    assert states(client, customer, AMENDED) == ["s01", "s04", "s07"]
    assert states(client, customer, CANCELLED) == ["s02", "s05", "s08", "s11"]
    counted = ["s00", "s03", "s06", "s09", "s10", "r01", "r04", "r07"]
    assert states(client, customer, ACTIVE) == counted
    assert len(states(client, customer, events_pb.EVENT_STATE_UNSPECIFIED)) == 15
    bad = events_pb.ListEventsRequest(customer_id=customer, state=99)  # type: ignore[arg-type]
    assert refusal(lambda: client.events.ListEvents(bad))[0] is grpc.StatusCode.INVALID_ARGUMENT


def late(seal: usage_pb.SealUsageResponse) -> dict[str, dict[str, Any]]:
    """Late usage by the month and day of the period's end."""
    return {each.period_end_time.ToDatetime().strftime("%m-%d"): totals(each) for each in seal.late_usage}


def test_a_correction_of_an_open_period_is_in_its_seal(client: Client) -> None:
    customer = client.put_customer()
    wrong, gone = bytes_of(customer, 100, time=utc(2026, 7, 2)), bytes_of(customer, 50, time=utc(2026, 7, 3))
    client.ingest(wrong, gone, bytes_of(customer, 1, time=utc(2026, 7, 4)))
    amend(client, wrong, bytes_of(customer, 7, time=utc(2026, 7, 2)))
    cancel(client, gone)

    assert totals(client.seal(customer, JULY, AUGUST)) == {"bytes": 8, "requests": 2}
    assert late(client.seal(customer, AUGUST, SEPTEMBER)) == {}


def test_a_correction_of_a_sealed_event_is_an_adjustment(client: Client) -> None:
    customer = client.put_customer()
    wrong, gone = bytes_of(customer, 100, time=utc(2026, 7, 2)), bytes_of(customer, 50, time=utc(2026, 7, 3))
    client.ingest(wrong, gone, bytes_of(customer, 1, time=utc(2026, 7, 4)))
    july = client.seal(customer, JULY, AUGUST)
    assert totals(july) == {"bytes": 151, "requests": 3}

    cancel(client, gone)
    # Usage as such follows; the sealed total stays; the next seal says what the closed period comes to.
    assert client.total(customer, "bytes", JULY, AUGUST) == 101
    assert totals(client.seal(customer, JULY, AUGUST)) == totals(july)
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 8))) == {"08-01": {"bytes": 101, "requests": 2}}

    # 1 + 7: the superseding event is late usage of the same seal.
    right = bytes_of(customer, 7, time=utc(2026, 7, 2))
    amend(client, wrong, right)
    assert client.total(customer, "bytes", JULY, AUGUST) == 8
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 9))) == {"08-01": {"bytes": 8, "requests": 2}}

    # A late event is corrected in its turn: 1 is left.
    cancel(client, right)
    assert client.total(customer, "bytes", JULY, AUGUST) == 1
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 10))) == {"08-01": {"bytes": 1, "requests": 1}}
    assert totals(client.seal(customer, JULY, AUGUST)) == totals(july)


def test_usage_that_is_amended_out_of_a_sealed_period_counts_in_the_open_one(client: Client) -> None:
    customer = client.put_customer()
    wrong = bytes_of(customer, 10, time=utc(2026, 7, 31))
    client.ingest(wrong)
    assert totals(client.seal(customer, JULY, AUGUST))["bytes"] == 10

    amend(client, wrong, bytes_of(customer, 10, time=utc(2026, 8, 1)))

    august = client.seal(customer, AUGUST, SEPTEMBER)
    assert totals(august) == {"bytes": 10, "requests": 1}
    # Nothing is left of July, which is told as 0 and not left out: 10 were billed.
    assert late(august) == {"08-01": {"bytes": 0, "requests": 0}}


def test_a_cancelled_late_event_leaves_what_was_sealed(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(bytes_of(customer, 10, time=utc(2026, 7, 31)))
    client.seal(customer, JULY, AUGUST)
    tardy = bytes_of(customer, 5, time=utc(2026, 7, 30))
    client.ingest(tardy)
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 8))) == {"08-01": {"bytes": 15, "requests": 2}}

    cancel(client, tardy)

    # It was told as 15, so that 10 is told now.
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 9))) == {"08-01": {"bytes": 10, "requests": 1}}


def test_a_sealed_line_points_to_no_corrected_event(client: Client) -> None:
    customer = client.put_customer()
    wrong = bytes_of(customer, 1, time=utc(2026, 7, 2, 9), trace_id="1" * 32)
    right = bytes_of(customer, 2, time=utc(2026, 7, 2, 10), trace_id="2" * 32)
    client.ingest(wrong)
    client.total(customer, "bytes")
    amend(client, wrong, right)

    seal = client.seal(customer, JULY, AUGUST)
    assert {trace for total in seal.totals for trace in total.sample_trace_ids} == {"2" * 32}


AGGREGATIONS = ("COUNT", "SUM", "MAX", "MIN", "AVG", "UNIQUE", "LATEST")


@pytest.fixture(scope="module")
def measures(client: Client) -> None:
    """A meter of each aggregation over events of type `measure`, by its name in lower case."""
    for name in AGGREGATIONS:
        meter = meters_pb.Meter(
            id=name.lower(),
            event_type="measure",
            aggregation=meters_pb.Aggregation.Value(f"AGGREGATION_{name}"),
            quantity="" if name in {"COUNT", "UNIQUE"} else "v",
            attribute="user" if name == "UNIQUE" else "",
        )
        client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))


def measure(customer: str, number: int, user: str, hour: int) -> events_pb.Event:
    return event(
        customer,
        type="measure",
        quantities={"v": str(number)},
        attributes={"user": user},
        time=JULY + timedelta(hours=hour),
    )


@pytest.mark.usefixtures("measures")
@pytest.mark.parametrize("is_sealed", [False, True])
def test_every_aggregation_is_made_anew(client: Client, is_sealed: bool) -> None:  # noqa: FBT001 - a parameter
    customer = client.put_customer()
    sent = [measure(customer, *each) for each in ((5, "a", 1), (100, "b", 2), (1, "a", 3), (7, "c", 5))]
    client.ingest(*sent)
    # 5 + 100 + 1 + 7 = 113; 113 / 4 = 28.25; the latest is 7; users a, b and c.
    first = {"count": 4, "sum": 113, "max": 100, "min": 1, "avg": Decimal("28.25"), "unique": 3, "latest": 7}
    # Without 100 of b: 13; 13 / 3, to 12 decimals.
    second = {"count": 3, "sum": 13, "max": 7, "min": 1, "avg": Decimal("4.333333333333"), "unique": 2, "latest": 7}
    # 9 of a at the fourth hour instead of 7 of c: 15; 15 / 3 = 5.
    third = {"count": 3, "sum": 15, "max": 9, "min": 1, "avg": 5, "unique": 1, "latest": 9}
    # Nothing but 9 is left.
    fourth = {"count": 1, "sum": 9, "max": 9, "min": 9, "avg": 9, "unique": 1, "latest": 9}
    ends = iter(range(8, 31))

    def used() -> dict[str, Decimal]:
        return {name.lower(): client.total(customer, name.lower(), JULY, AUGUST) for name in AGGREGATIONS}

    def adjusted() -> dict[str, dict[str, Any]]:
        return late(client.seal(customer, AUGUST, utc(2026, 8, next(ends))))

    assert used() == first
    if is_sealed:
        july = totals(client.seal(customer, JULY, AUGUST))
        assert july == first
    right = measure(customer, 9, "a", 4)
    for correct, expected in (
        (lambda: cancel(client, sent[1]), second),
        (lambda: amend(client, sent[3], right), third),
        (lambda: (cancel(client, sent[0]), cancel(client, sent[2])), fourth),
    ):
        correct()
        assert used() == expected
        if is_sealed:
            assert adjusted() == {"08-01": expected}
            assert totals(client.seal(customer, JULY, AUGUST)) == july
    if not is_sealed:
        assert totals(client.seal(customer, JULY, AUGUST)) == fourth
        assert adjusted() == {}


@pytest.mark.usefixtures("measures")
def test_a_late_event_below_the_maximum_adjusts_by_nothing_until_the_maximum_is_cancelled(
    client: Client,
) -> None:
    customer = client.put_customer()
    highest = measure(customer, 100, "a", 1)
    client.ingest(highest, measure(customer, 5, "a", 2))
    assert totals(client.seal(customer, JULY, AUGUST))["max"] == 100
    client.ingest(measure(customer, 50, "b", 3))
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 2)))["08-01"]["max"] == 100

    cancel(client, highest)
    # Of 5 that was sealed and 50 that came late.
    assert late(client.seal(customer, AUGUST, utc(2026, 8, 3)))["08-01"]["max"] == 50


def test_a_correction_in_a_quarter_of_an_hour_that_a_period_cuts(client: Client) -> None:
    change = utc(2026, 7, 10, 10, 7)
    customer = client.put_customer(periods=[(JULY, change), (change, AUGUST)])
    sent = [
        bytes_of(customer, number, time=change + timedelta(minutes=m)) for number, m in ((1, -2), (10, -1), (100, 1))
    ]
    client.ingest(*sent, bytes_of(customer, 1000, time=change + timedelta(minutes=2)))
    cancel(client, sent[0])
    amend(client, sent[2], bytes_of(customer, 500, time=change - timedelta(minutes=5)))

    # The first period has 10 and 500, the second 1000.
    assert totals(client.seal(customer, JULY, change))["bytes"] == 510
    assert totals(client.seal(customer, change, AUGUST))["bytes"] == 1000


def test_an_event_that_commits_behind_the_correction_s_beginning_is_corrected_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transaction's id is above the correction's: the rollup would come to the correction before the event."""
    customer = client.put_customer()
    wrong = bytes_of(customer, 100)
    taken: list[int] = []

    def writer(conn: sa.Connection) -> int:
        taken.append(places.writer(conn))
        if len(taken) == 1:
            client.ingest(wrong)
        return taken[-1]

    own = SimpleNamespace(writer=writer, floor=places.floor, RAW=places.RAW)
    monkeypatch.setattr(corrections, "places", own)

    assert cancel(client, wrong).state == CANCELLED
    # Not in the first transaction, whose id is below the event's.
    assert len(taken) == 2
    assert client.total(customer, "bytes") == 0
