"""Limits: what a check answers, from where, and the signals that thresholds raise, once each."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
import redis
from eventually import eventually
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from usage_harness import Alerts, Client, caller_in, event, timestamp, utc

from meterscope.usage.v1 import limit_service_pb2 as pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from services.kit.channel import open_channel
from services.kit.db import Database
from services.kit.embedded import EmbeddedValkey
from services.kit.errors import InvalidArgument
from services.usage.__main__ import build_server
from services.usage.settings import Settings
from services.usage.store import customers

pytestmark = pytest.mark.usefixtures("metric_reader", "meters", "worker")

LIVE, DATABASE = pb.ANSWERED_FROM_LIVE, pb.ANSWERED_FROM_DATABASE


def count(reader: InMemoryMetricReader, name: str, **labels: str) -> float:
    """What a counter says, or how often a histogram recorded something, under these labels."""
    data = reader.get_metrics_data()
    total = 0.0
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points if metric.name == name else ():
                    if labels.items() <= dict(point.attributes or {}).items():
                        assert isinstance(point, (HistogramDataPoint, NumberDataPoint))
                        total += point.count if isinstance(point, HistogramDataPoint) else point.value
    return total


@pytest.fixture
def store(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


def test_a_check_answers_from_the_live_counters(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "4"})
    client.ingest(*[event(customer) for _ in range(3)])

    answer = client.until_used(customer, "requests", "3", answered_from=LIVE)

    assert answer.allowed
    assert (answer.limit.value, answer.remaining.value, answer.percentage) == ("4", "1", 75)
    assert answer.kind == pb.LIMIT_KIND_HARD
    # Without billing periods the calendar month counts.
    today = datetime.now(UTC)
    following = (today.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert answer.reset_time == timestamp(following)
    # One more is the last: 3 + 1 = 4, 3 + 2 = 5.
    assert client.check(customer, "requests", "1").allowed
    assert not client.check(customer, "requests", "2").allowed


def test_a_soft_limit_refuses_nothing_and_a_limit_without_a_plan_is_a_default(client: Client) -> None:
    soft = client.put_customer(limits={"requests": "1"}, kind=pb.LIMIT_KIND_SOFT)
    default = client.put_customer(limits={"requests": "1"}, has_plan=False)

    assert client.check(soft, "requests", "100").allowed
    answer = client.check(default, "requests", "2")
    assert (answer.allowed, answer.kind) == (False, pb.LIMIT_KIND_DEFAULT)


def test_without_a_limit_everything_is_allowed(client: Client) -> None:
    answer = client.check(client.put_customer(), "requests", "1000000")

    assert answer.allowed
    assert answer.kind == pb.LIMIT_KIND_NONE
    assert not answer.HasField("limit")


def test_the_counters_are_readable_hashes(client: Client, store: redis.Redis) -> None:
    customer = client.put_customer()
    client.ingest(*[event(customer, quantities={"bytes": "0.5"}) for _ in range(3)])
    client.until_used(customer, "bytes", "1.5", answered_from=LIVE)

    name = f"usage:{customer}:{datetime.now(UTC):%Y%m}"
    assert store.hmget(name, "requests", "bytes") == ["3", "1.5"]


def test_a_flushed_redis_is_filled_again_and_the_database_answers_meanwhile(client: Client, store: redis.Redis) -> None:
    customer = client.put_customer()
    client.ingest(event(customer))
    client.until_used(customer, "requests", "1", answered_from=LIVE)

    store.delete(*store.keys("usage:*"))

    # Whoever answers, the answer is right.
    assert client.check(customer, "requests").used.value == "1"
    client.until_used(customer, "requests", "1", answered_from=LIVE)


def test_without_redis_the_database_answers(client: Client, valkey: EmbeddedValkey) -> None:
    customer = client.put_customer(limits={"requests": "1"})
    valkey.kill()
    try:
        client.ingest(event(customer))
        client.until_used(customer, "requests", "1", answered_from=DATABASE)
        assert not client.check(customer, "requests").allowed
    finally:
        valkey.start()
    client.until_used(customer, "requests", "1", answered_from=LIVE)


def test_a_billing_period_counts_for_itself(client: Client) -> None:
    now = datetime.now(UTC)
    earlier, current = (
        (now - timedelta(days=20), now - timedelta(days=3)),
        (now - timedelta(days=3), now + timedelta(7)),
    )
    customer = client.put_customer(periods=[earlier, current], limits={"requests": "10"})
    times = [now - timedelta(days=4), now - timedelta(days=2), now - timedelta(days=1)]
    client.ingest(*[event(customer, time=time) for time in times])

    answer = client.until_used(customer, "requests", "2", answered_from=LIVE)

    assert answer.reset_time == timestamp(current[1])


def test_a_period_that_begins_within_a_quarter_of_an_hour_splits_it(client: Client) -> None:
    """Also when the events came before it was known: both halves are counted, each to its own."""
    start = datetime.now(UTC).replace(minute=7, second=30, microsecond=0) - timedelta(days=1)
    customer = client.put_customer()
    client.ingest(*[event(customer, time=start + timedelta(seconds=seconds)) for seconds in (-60, -1, 0, 1, 60)])
    month = client.total(customer, "requests")

    client.put_customer(customer, revision=2, periods=[(start, start + timedelta(days=30))])

    client.until_used(customer, "requests", "3", answered_from=LIVE)
    assert client.total(customer, "requests") == month == 5
    client.ingest(event(customer, time=start - timedelta(seconds=2)), event(customer, time=start))
    client.until_used(customer, "requests", "4", answered_from=LIVE)
    assert client.total(customer, "requests") == 7


def test_an_older_revision_that_arrives_late_changes_nothing(client: Client) -> None:
    customer = client.put_customer(revision=5, limits={"requests": "5"})
    late = pb.PutEntitlementsRequest(customer_id=customer, revision=4, time_zone="UTC", request_id=uuid4().hex)

    assert client.limits.PutEntitlements(late).revision == 5
    assert client.check(customer, "requests").limit.value == "5"


def test_a_changed_limit_is_known_within_a_second(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "5"})
    assert client.check(customer, "requests").limit.value == "5"

    client.put_customer(customer, revision=2, limits={"requests": "6"})

    eventually(lambda: client.check(customer, "requests").limit.value == "6", seconds=2)


def test_a_key_of_another_customer_is_refused(client: Client) -> None:
    client.put_customer(keys=["taken"])
    with pytest.raises(grpc.RpcError) as caught:
        client.put_customer(keys=["taken"])
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_limits_are_listed_by_meter_in_pages(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "10", "bytes": "100"})
    client.ingest(event(customer, quantities={"bytes": "25"}))
    client.total(customer, "bytes")

    first = client.limits.ListLimits(pb.ListLimitsRequest(customer_id=customer, page_size=1))
    rest = client.limits.ListLimits(
        pb.ListLimitsRequest(customer_id=customer, page_size=1, page_token=first.next_page_token)
    )

    assert [(each.meter, each.used.value, each.percentage) for each in (*first.limits, *rest.limits)] == [
        ("bytes", "25", 25),
        ("requests", "1", 10),
    ]
    assert not rest.next_page_token


def test_a_batch_that_jumps_over_thresholds_raises_each_once_in_the_trace_that_crossed(
    client: Client, alerts: Alerts
) -> None:
    customer = client.put_customer(limits={"requests": "10"})
    trace = uuid4().hex
    client.ingest(*[event(customer) for _ in range(7)])
    client.total(customer, "requests")
    with caller_in(trace):
        client.ingest(*[event(customer) for _ in range(5)])

    eventually(lambda: len(alerts.thresholds(customer)) >= 3)
    client.ingest(*[event(customer) for _ in range(5)])
    client.total(customer, "requests")

    # 7 of 10 crossed nothing, 12 of 10 crosses 80, 95 and 100 % at once; 17 of 10 nothing more.
    assert alerts.thresholds(customer) == [("requests", 80), ("requests", 95), ("requests", 100)]
    assert alerts.trace_ids(customer) == {trace}


@pytest.mark.parametrize(
    ("meter", "fields", "used"),
    [
        # 5 seats at most; 2 people; 3 GB at last; (5 + 1 + 3) / 3 = 3 on average.
        ("most-seats", {"aggregation": meters_pb.AGGREGATION_MAX, "quantity": "seats"}, "5"),
        ("people", {"aggregation": meters_pb.AGGREGATION_UNIQUE, "attribute": "person"}, "2"),
        ("stored", {"aggregation": meters_pb.AGGREGATION_LATEST, "quantity": "seats"}, "3"),
        ("mean-seats", {"aggregation": meters_pb.AGGREGATION_AVG, "quantity": "seats"}, "3"),
    ],
)
def test_limits_hold_for_every_aggregation(
    client: Client, alerts: Alerts, store: redis.Redis, meter: str, fields: dict[str, Any], used: str
) -> None:
    """The live counters and the database say the same."""
    client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meters_pb.Meter(id=meter, event_type=meter, **fields)))
    customer = client.put_customer(limits={meter: used}, thresholds=[100])
    now = datetime.now(UTC)
    rows = [("5", "ann"), ("1", "bob"), ("3", "ann")]
    client.ingest(
        *[
            event(
                customer,
                type=meter,
                time=now - timedelta(milliseconds=3 - number),
                quantities={"seats": seats},
                attributes={"person": person},
            )
            for number, (seats, person) in enumerate(rows)
        ]
    )

    live = client.until_used(customer, meter, used, answered_from=LIVE)
    assert (live.allowed, live.percentage, live.remaining.value) == (False, 100, "0")
    (stored,) = client.limits.ListLimits(pb.ListLimitsRequest(customer_id=customer)).limits
    assert (stored.used.value, stored.answered_from) == (used, DATABASE)
    eventually(lambda: alerts.thresholds(customer) == [(meter, 100)])
    # What is read once the counters are filled anew is what was there.
    store.delete(*store.keys("usage:*"))
    client.until_used(customer, meter, used, answered_from=LIVE)


def test_a_lowered_limit_raises_what_is_reached_by_then(client: Client, alerts: Alerts) -> None:
    customer = client.put_customer(limits={"bytes": "1000"}, thresholds=[50, 100])
    client.ingest(event(customer, quantities={"bytes": "120"}))
    client.total(customer, "bytes")
    assert alerts.thresholds(customer) == []

    client.put_customer(customer, revision=2, limits={"bytes": "200"}, thresholds=[50, 100])

    eventually(lambda: alerts.thresholds(customer) == [("bytes", 50)])


def test_usage_of_a_closed_period_raises_its_signal_too(client: Client, alerts: Alerts) -> None:
    period = (utc(2026, 5, 1), utc(2026, 6, 1))
    customer = client.put_customer(periods=[period], limits={"requests": "2"}, thresholds=[100])
    client.ingest(*[event(customer, time=utc(2026, 5, 3)) for _ in range(2)])

    eventually(lambda: alerts.thresholds(customer) == [("requests", 100)])


def test_many_limits_are_checked_at_once_and_one_error_fails_no_other(client: Client) -> None:
    customer = client.put_customer(limits={"requests": "2"})
    free = client.put_customer()
    client.ingest(event(customer), event(free))
    client.until_used(customer, "requests", "1", answered_from=LIVE)

    def one(customer_id: str, meter: str, quantity: str) -> pb.CheckLimitRequest:
        return pb.CheckLimitRequest(customer_id=customer_id, meter=meter, quantity={"value": quantity})

    request = pb.BatchCheckLimitsRequest(
        checks=[
            one(customer, "requests", "1"),
            one(customer, "requests", "2"),
            one("cus_x", "requests", "1"),
            one(customer, "nothing", "1"),
            one(customer, "requests", "many"),
            one("", "requests", "1"),
            one(free, "requests", "1000"),
        ]
    )
    results = client.limits.BatchCheckLimits(request).results

    assert [each.index for each in results] == list(range(7))
    assert [(each.reason, each.field) for each in results[2:6]] == [
        ("CUSTOMER_NOT_FOUND", ""),
        ("METER_NOT_FOUND", ""),
        ("NOT_A_NUMBER", "checks[4].quantity"),
        ("MISSING", "checks[5].customer_id"),
    ]
    assert all(each.message and not each.HasField("check") for each in results[2:6])
    # 1 + 1 = 2 is within the limit, 1 + 2 = 3 is not.
    assert [each.check.allowed for each in (results[0], results[1], results[6])] == [True, False, True]
    assert {each.check.answered_from for each in (results[0], results[1], results[6])} == {LIVE}
    assert results[6].check.kind == pb.LIMIT_KIND_NONE


def test_a_thousand_limits_are_one_round_trip(client: Client, metric_reader: InMemoryMetricReader) -> None:
    customer = client.put_customer(limits={"requests": "2"})
    client.ingest(event(customer))
    client.until_used(customer, "requests", "1", answered_from=LIVE)
    trips = count(metric_reader, "billing.redis.operation.duration", operation="hget")

    checks = [pb.CheckLimitRequest(customer_id=customer, meter="requests") for _ in range(1_000)]
    results = client.limits.BatchCheckLimits(pb.BatchCheckLimitsRequest(checks=checks)).results

    assert {each.check.used.value for each in results} == {"1"}
    # One of this, and what the rollup asks of its own accord: it looks at the epoch.
    assert 1 <= count(metric_reader, "billing.redis.operation.duration", operation="hget") - trips < 20


@pytest.mark.parametrize("number", [0, 1_001])
def test_a_batch_of_none_or_too_many_is_refused(client: Client, number: int) -> None:
    checks = [pb.CheckLimitRequest(customer_id="cus_x", meter="requests")] * number
    with pytest.raises(grpc.RpcError) as caught:
        client.limits.BatchCheckLimits(pb.BatchCheckLimitsRequest(checks=checks))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"checks: has {number} checks" in str(caught.value.details())


def test_what_is_refused_is_counted(client: Client, metric_reader: InMemoryMetricReader) -> None:
    hard = client.put_customer(limits={"requests": "2"})
    soft = client.put_customer(limits={"requests": "2"}, kind=pb.LIMIT_KIND_SOFT)
    for customer in (hard, soft):
        client.check(customer, "requests", "2")
        client.check(customer, "requests", "3")
    checks = [pb.CheckLimitRequest(customer_id=hard, meter="requests", quantity={"value": "3"})] * 2
    client.limits.BatchCheckLimits(pb.BatchCheckLimitsRequest(checks=checks))
    with pytest.raises(grpc.RpcError):
        client.reserve(hard, "requests", "3")
    client.reserve(soft, "requests", "3")

    # One check, two in a batch, one reservation; a soft limit refuses nothing.
    assert count(metric_reader, "billing.limit.exceeded", customer_id=hard, limit_type="requests") == 4
    assert count(metric_reader, "billing.limit.exceeded", customer_id=soft) == 0


def test_a_limit_that_is_raised_and_reached_again_raises_nothing_more(client: Client, alerts: Alerts) -> None:
    """Once a period and threshold (docs/decisions/0012)."""
    customer = client.put_customer(limits={"requests": "2"}, thresholds=[100])
    client.ingest(event(customer), event(customer))
    eventually(lambda: alerts.thresholds(customer) == [("requests", 100)])

    client.put_customer(customer, revision=2, limits={"requests": "4"}, thresholds=[50, 75, 100])
    eventually(lambda: alerts.thresholds(customer) == [("requests", 50), ("requests", 100)])
    client.ingest(event(customer), event(customer))

    # 4 of 4: 75 % is new, 100 % was raised at 2 of 2.
    eventually(lambda: len(alerts.thresholds(customer)) >= 3)
    assert alerts.thresholds(customer) == [("requests", 50), ("requests", 75), ("requests", 100)]


def test_a_new_period_raises_its_thresholds_anew(client: Client, alerts: Alerts) -> None:
    now = datetime.now(UTC)
    earlier, current = (
        (now - timedelta(days=20), now - timedelta(days=3)),
        (now - timedelta(days=3), now + timedelta(7)),
    )
    customer = client.put_customer(periods=[earlier, current], limits={"requests": "1"}, thresholds=[100])

    client.ingest(event(customer, time=now - timedelta(days=4)))
    eventually(lambda: len(alerts.thresholds(customer)) == 1)
    client.ingest(event(customer))

    eventually(lambda: alerts.thresholds(customer) == [("requests", 100), ("requests", 100)])


def test_a_server_that_starts_while_billing_is_away_knows_what_billing_told(client: Client, migrated: Settings) -> None:
    """Nothing of billing runs here at all: revisions, limits, periods and keys are usage's own."""
    key = uuid4().hex
    customer = client.put_customer(keys=[key], revision=3, limits={"requests": "2"})
    server = build_server(migrated)
    port = server.start()
    with open_channel(f"127.0.0.1:{port}", migrated.kit) as channel:
        other = Client.on(channel)
        assert other.outcomes(event(key), event(key)) == ["ACCEPTED", "ACCEPTED"]
        assert not other.until_used(customer, "requests", "2", answered_from=LIVE).allowed
        # A delivery of billing's that was held up changes nothing.
        other.put_customer(customer, revision=2, limits={"requests": "100"})
        assert other.check(customer, "requests").limit.value == "2"
    server.stop()


BAD_ENTITLEMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no request id": ({"request_id": ""}, "request_id"),
    "no revision": ({"revision": 0}, "revision"),
    "no time zone": ({"time_zone": ""}, "time_zone"),
    "an empty key": ({"customer_keys": [""]}, "customer_keys[0]"),
    "a threshold of 0 %": (
        {"limits": [pb.Limit(meter="m", limit={"value": "1"}, kind=pb.LIMIT_KIND_HARD, thresholds=[0])]},
        "limits[0].thresholds",
    ),
    "a negative limit": ({"limits": [pb.Limit(meter="m", limit={"value": "-1"})]}, "limits[0].limit"),
    "no kind": ({"limits": [pb.Limit(meter="m", limit={"value": "1"})]}, "limits[0].kind"),
}


@pytest.mark.parametrize("case", BAD_ENTITLEMENTS)
def test_bad_entitlements_name_the_field(client: Client, case: str) -> None:
    changed, field = BAD_ENTITLEMENTS[case]
    fields: dict[str, Any] = {"customer_id": "cus_1", "revision": 1, "time_zone": "UTC", "request_id": uuid4().hex}
    with pytest.raises(grpc.RpcError) as caught:
        client.limits.PutEntitlements(pb.PutEntitlementsRequest(**(fields | changed)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(caught.value.details())


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "Factory", "posix/Europe/Berlin", "right/UTC", "Mars/X"])
def test_a_time_zone_that_is_no_iana_name_is_refused(client: Client, zone: str) -> None:
    """Also where a billing period leaves no month to be cut: the rollup would stumble over it for everybody."""
    with pytest.raises(grpc.RpcError) as caught:
        client.put_customer(time_zone=zone, periods=[(utc(2000, 1, 1), utc(2100, 1, 1))])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(caught.value.details()).startswith(f"time_zone: {zone!r} is no IANA time zone; use a name such as")


def test_a_time_zone_that_the_database_does_not_know_is_refused(database: Database) -> None:
    """Python's zones may be newer than the database's."""
    with (
        pytest.raises(InvalidArgument, match="the database knows no time zone 'Mars/X'"),
        database.transaction() as conn,
    ):
        customers.check_time_zone(conn, "Mars/X")


@pytest.mark.parametrize(("customer", "meter"), [("cus_x", "requests"), (None, "nothing")])
def test_a_check_of_what_is_not_there(client: Client, customer: str | None, meter: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.check(customer or client.put_customer(), meter)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
