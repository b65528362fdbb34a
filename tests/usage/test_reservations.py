"""Reservations: never more than the limit, however many ask; counted until the totals hold the event; run out by time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from eventually import eventually
from google.protobuf.duration_pb2 import Duration
from usage_harness import SOURCE, Client, event

from meterscope.usage.v1 import limit_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("meters", "worker")

SQL = psycopg.Connection[tuple[object, ...]]


def refused(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def code(call: Callable[[], object]) -> grpc.StatusCode:
    found: grpc.StatusCode = refused(call).code()
    return found


def listed(client: Client, customer: str) -> tuple[str, str, str]:
    """(used, reserved, remaining) of `requests`, from the database."""
    (limit,) = client.limits.ListLimits(pb.ListLimitsRequest(customer_id=customer)).limits
    return limit.used.value, limit.reserved.value, limit.remaining.value


def test_what_is_reserved_is_not_left_to_others(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    client.ingest(*[event(customer) for _ in range(4)])
    client.total(customer, "requests")

    made = client.reserve(customer, "requests", "5")

    assert (made.state, made.meter, made.quantity.value, made.customer_id) == (
        pb.RESERVATION_STATE_OPEN,
        "requests",
        "5",
        customer,
    )
    # Without a ttl it holds for five minutes.
    assert made.expire_time.seconds - made.create_time.seconds == 300
    # 4 + 5 + 2 = 11 is above 10, 4 + 5 + 1 = 10 is not.
    error = refused(lambda: client.reserve(customer, "requests", "2"))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "4 used and 5 reserved of 10" in str(error.details())
    client.reserve(customer, "requests", "1")
    assert listed(client, customer) == ("4", "6", "0")

    def told() -> bool:
        check = client.check(customer, "requests")
        return (check.allowed, check.reserved.value, check.answered_from) == (False, "6", pb.ANSWERED_FROM_LIVE)

    eventually(told)


def test_many_at_once_never_get_more_than_there_is(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10"})

    def ask(_number: int) -> bool:
        try:
            client.reserve(customer, "requests", "3")
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017 - others are granted
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(ask, range(24)))

    # 3 · 3 = 9 fit into 10, a fourth does not.
    assert granted.count(True) == 3
    assert listed(client, customer) == ("0", "9", "1")


def test_a_soft_limit_and_none_grant_everything(client: Client) -> None:
    soft = client.put_customer(limits={"requests": "1"}, kind=pb.LIMIT_KIND_SOFT)
    free = client.put_customer()

    assert client.reserve(soft, "requests", "100").state == pb.RESERVATION_STATE_OPEN
    assert client.reserve(free, "requests", "100").state == pb.RESERVATION_STATE_OPEN
    assert client.check(free, "requests", "1000000").allowed


def test_a_committed_reservation_counts_until_the_totals_hold_its_event(client: Client, sql: SQL) -> None:
    """Committed before its event is ingested, and still never counted nowhere."""
    customer = client.put_customer(limits={"requests": "10"})
    made = client.reserve(customer, "requests", "4", seconds=1)

    committed = client.commit(made, "used-1", quantity="3")

    assert committed.state == pb.RESERVATION_STATE_COMMITTED
    assert (committed.event_source, committed.event_id, committed.quantity.value) == (SOURCE, "used-1", "3")
    # It outlives its time: nobody knows where its event is.
    eventually(
        lambda: sql.execute("SELECT now() > %s::timestamptz", [made.expire_time.ToJsonString()]).fetchone() == (True,)
    )
    assert listed(client, customer) == ("0", "3", "7")

    client.ingest(event(customer, id="other"), event(customer, id="used-1"))
    client.total(customer, "requests")

    # Two events are counted, and the reservation not any more.
    assert listed(client, customer) == ("2", "0", "8")
    # The sweep says so too, to the live counters as well.
    eventually(lambda: client.check(customer, "requests").reserved.value == "0")
    assert sql.execute("SELECT counts, state FROM reservations WHERE id = %s", [made.id]).fetchone() == (
        False,
        "COMMITTED",
    )


def test_a_reservation_committed_behind_its_event_counts_no_more(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    made = client.reserve(customer, "requests", "1")
    client.ingest(event(customer, id="used"))
    client.total(customer, "requests")
    assert listed(client, customer) == ("1", "1", "8")

    client.commit(made, "used")

    assert listed(client, customer) == ("1", "0", "9")


def test_use_and_reservations_together_never_exceed_the_limit(client: Client) -> None:
    """Callers that reserve, use, commit, or give up, all at once: what is used at the end is within the limit."""
    customer = client.put_customer(limits={"requests": "30"})

    def caller(number: int) -> int:
        used = 0
        for turn in range(8):
            try:
                made = client.reserve(customer, "requests", "2")
            except grpc.RpcError:
                continue
            if (number + turn) % 4 == 0:
                client.release(made)
                continue
            name = f"{number}-{turn}"
            if turn % 2:
                client.commit(made, name)
                client.ingest(event(customer, id=name), event(customer, id=f"{name}-second"))
            else:
                client.ingest(event(customer, id=f"{name}-second"), event(customer, id=name))
                client.commit(made, name)
            used += 2
        return used

    with ThreadPoolExecutor(6) as pool:
        used = sum(pool.map(caller, range(6)))

    assert client.total(customer, "requests") == used <= 30
    # Nothing stays set aside; all that is left can be had.
    eventually(lambda: listed(client, customer) == (str(used), "0", str(30 - used)))


def test_time_gives_a_reservation_back(client: Client, sql: SQL) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    made = client.reserve(customer, "requests", "10", seconds=1)

    # As soon as it is past, whether it was swept or not.
    eventually(lambda: listed(client, customer) == ("0", "0", "10"))
    client.reserve(customer, "requests", "10")

    error = refused(lambda: client.commit(made, "late"))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "expired at" in str(error.details())
    assert client.release(made).state == pb.RESERVATION_STATE_EXPIRED
    state = "SELECT state FROM reservations WHERE id = %s"
    eventually(lambda: sql.execute(state, [made.id]).fetchone() == ("EXPIRED",))


def test_a_released_reservation_can_be_had_again(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    made = client.reserve(customer, "requests", "10")

    assert client.release(made).state == pb.RESERVATION_STATE_RELEASED

    client.reserve(customer, "requests", "10")
    assert client.release(made).state == pb.RESERVATION_STATE_RELEASED
    assert "was released" in str(refused(lambda: client.commit(made, "e")).details())


def test_a_request_that_is_repeated_acts_once(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    one, two = uuid4().hex, uuid4().hex

    first = client.reserve(customer, "requests", "6", request_id=one)
    assert client.reserve(customer, "requests", "6", request_id=one) == first
    assert listed(client, customer) == ("0", "6", "4")
    assert code(lambda: client.reserve(customer, "requests", "7", request_id=one)) is grpc.StatusCode.ALREADY_EXISTS

    committed = client.commit(first, "e", request_id=two)
    assert client.commit(first, "e", request_id=two) == committed
    # Another request that says the same is no error either; one that says something else is.
    assert client.commit(first, "e") == committed
    assert code(lambda: client.commit(first, "other")) is grpc.StatusCode.FAILED_PRECONDITION
    assert code(lambda: client.commit(first, "e", quantity="1")) is grpc.StatusCode.FAILED_PRECONDITION
    assert code(lambda: client.release(first)) is grpc.StatusCode.FAILED_PRECONDITION


def test_a_refused_request_may_be_granted_later(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    made = client.reserve(customer, "requests", "10")
    again = uuid4().hex
    assert (
        code(lambda: client.reserve(customer, "requests", "1", request_id=again)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    )

    client.release(made)

    assert client.reserve(customer, "requests", "1", request_id=again).state == pb.RESERVATION_STATE_OPEN


def test_a_limit_that_was_lowered_a_moment_ago_counts(client: Client) -> None:
    """No cache is asked."""
    customer = client.put_customer(limits={"requests": "10"})
    client.reserve(customer, "requests", "1")

    client.put_customer(customer, revision=2, limits={"requests": "5"})

    assert code(lambda: client.reserve(customer, "requests", "5")) is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.reserve(customer, "requests", "4")


def test_a_period_that_was_changed_a_moment_ago_has_its_totals(client: Client) -> None:
    """The rollup sets them; until then the new period would seem to have none."""
    now = datetime.now(UTC)
    customer = client.put_customer()
    client.ingest(*[event(customer) for _ in range(8)])
    client.total(customer, "requests")

    client.put_customer(
        customer, revision=2, periods=[(now - timedelta(days=1), now + timedelta(days=9))], limits={"requests": "10"}
    )

    # 8 + 3 = 11 is above 10.
    assert code(lambda: client.reserve(customer, "requests", "3")) is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.reserve(customer, "requests", "2")


def test_more_than_was_reserved_cannot_be_committed(client: Client) -> None:
    made = client.reserve(client.put_customer(limits={"requests": "10"}), "requests", "2")

    error = refused(lambda: client.commit(made, "e", quantity="2.5"))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "quantity: 2.5 is more than the 2" in str(error.details())


def test_what_is_not_there(client: Client) -> None:
    customer = client.put_customer()
    nothing = pb.Reservation(id="rsv_x", customer_id=customer)

    assert code(lambda: client.reserve("cus_x", "requests", "1")) is grpc.StatusCode.NOT_FOUND
    assert code(lambda: client.reserve(customer, "nothing", "1")) is grpc.StatusCode.NOT_FOUND
    assert code(lambda: client.commit(nothing, "e")) is grpc.StatusCode.NOT_FOUND
    assert code(lambda: client.release(nothing)) is grpc.StatusCode.NOT_FOUND
    other = client.reserve(customer, "requests", "1")
    other.customer_id = client.put_customer()
    assert code(lambda: client.release(other)) is grpc.StatusCode.NOT_FOUND


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no customer": ({"customer_id": ""}, "customer_id"),
    "no request id": ({"request_id": ""}, "request_id"),
    "no meter": ({"reservation": {"quantity": {"value": "1"}}}, "reservation.meter"),
    "no quantity": ({"reservation": {"meter": "requests"}}, "reservation.quantity"),
    "nothing": ({"reservation": {"meter": "requests", "quantity": {"value": "0"}}}, "reservation.quantity"),
    "less than nothing": ({"reservation": {"meter": "requests", "quantity": {"value": "-1"}}}, "reservation.quantity"),
    "not a number": ({"reservation": {"meter": "requests", "quantity": {"value": "NaN"}}}, "reservation.quantity"),
    "29 digits": ({"reservation": {"meter": "requests", "quantity": {"value": "1" * 29}}}, "reservation.quantity"),
    "a NUL": ({"reservation": {"meter": "a\0b", "quantity": {"value": "1"}}}, "reservation.meter"),
    "a long meter": ({"reservation": {"meter": "x" * 257, "quantity": {"value": "1"}}}, "reservation.meter"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_reservation_names_the_field(client: Client, case: str) -> None:
    changed, field = BAD[case]
    fields: dict[str, Any] = {
        "customer_id": client.put_customer(),
        "reservation": {"meter": "requests", "quantity": {"value": "1"}},
        "request_id": uuid4().hex,
    }
    error = refused(lambda: client.limits.ReserveQuota(pb.ReserveQuotaRequest(**(fields | changed))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith(f"{field}:")


@pytest.mark.parametrize("seconds", [-1, 0, 86_401, 315_576_000_000, 2**62])
def test_a_time_that_is_none_is_refused(client: Client, seconds: int) -> None:
    reservation = pb.Reservation(meter="requests", quantity={"value": "1"}, ttl=Duration(seconds=seconds))
    request = pb.ReserveQuotaRequest(customer_id=client.put_customer(), reservation=reservation, request_id=uuid4().hex)
    error = refused(lambda: client.limits.ReserveQuota(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "reservation.ttl" in str(error.details())


@pytest.mark.parametrize("field", ["customer_id", "reservation_id", "event_source", "event_id", "request_id"])
@pytest.mark.parametrize("value", ["", "x" * 257, "a\0b"])
def test_a_bad_commit_names_the_field(client: Client, field: str, value: str) -> None:
    fields = dict.fromkeys(["customer_id", "reservation_id", "event_source", "event_id", "request_id"], "a")
    request = pb.CommitReservationRequest(**(fields | {field: value}))
    error = refused(lambda: client.limits.CommitReservation(request))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(error.details())
    if not field.startswith("event_"):
        given = {"customer_id": "a", "reservation_id": "a", "request_id": "a"} | {field: value}
        assert code(lambda: client.limits.ReleaseReservation(pb.ReleaseReservationRequest(**given))) is error.code()
