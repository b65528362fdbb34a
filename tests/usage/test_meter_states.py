"""Meters of every aggregation, with filters and groups, in windows, limits, seals and late usage; worked by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest
from eventually import eventually
from usage_harness import Alerts, Client, amend, cancel, event, timestamp, utc

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import usage_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("states", "worker")

CALL = "model.call"
START, END = utc(2026, 3, 1), utc(2026, 4, 1)


def filter_(attribute: str, operator: meters_pb.FilterOperator.ValueType, *values: str) -> meters_pb.MeterFilter:
    return meters_pb.MeterFilter(attribute=attribute, operator=operator, values=values)


def meter(
    id: str,  # noqa: A002 - the field's name
    aggregation: meters_pb.Aggregation.ValueType,
    *,
    quantity: str = "",
    attribute: str = "",
    filters: Sequence[meters_pb.MeterFilter] = (),
    group_by: Sequence[str] = (),
) -> meters_pb.Meter:
    return meters_pb.Meter(
        id=id,
        event_type=CALL,
        aggregation=aggregation,
        quantity=quantity,
        attribute=attribute,
        filters=filters,
        group_by=group_by,
    )


METERS = [
    meter("calls", meters_pb.AGGREGATION_COUNT, group_by=["region", "model"]),
    meter("tokens", meters_pb.AGGREGATION_SUM, quantity="tokens"),
    meter("most", meters_pb.AGGREGATION_MAX, quantity="tokens", group_by=["region"]),
    meter("least", meters_pb.AGGREGATION_MIN, quantity="tokens"),
    meter("mean", meters_pb.AGGREGATION_AVG, quantity="tokens"),
    meter("users", meters_pb.AGGREGATION_UNIQUE, attribute="user", group_by=["region"]),
    meter("level", meters_pb.AGGREGATION_LATEST, quantity="tokens"),
    meter(
        "slow-eu",
        meters_pb.AGGREGATION_COUNT,
        filters=[
            filter_("region", meters_pb.FILTER_OPERATOR_EQUALS, "eu"),
            filter_("ms", meters_pb.FILTER_OPERATOR_GREATER_OR_EQUAL, "250.5"),
        ],
    ),
    meter("known", meters_pb.AGGREGATION_COUNT, filters=[filter_("user", meters_pb.FILTER_OPERATOR_EXISTS)]),
    meter("some", meters_pb.AGGREGATION_COUNT, filters=[filter_("model", meters_pb.FILTER_OPERATOR_IN, "a", 'b"]')]),
]


@pytest.fixture(scope="module")
def states(client: Client) -> None:
    for each in METERS:
        client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=each))


def call(
    customer: str,
    time: datetime,
    tokens: str | None,
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    **attributes: str,
) -> events_pb.Event:
    quantities = {} if tokens is None else {"tokens": tokens}
    return event(customer, id=id, type=CALL, time=time, quantities=quantities, attributes=attributes)


def month(customer: str) -> list[events_pb.Event]:
    """Two quarters of an hour of the 10th, one of the 11th."""
    ten = utc(2026, 3, 10, 10)
    return [
        call(customer, ten, "7", id="a", region="eu", model="a", user="ann", ms="250.5"),
        call(customer, ten + timedelta(minutes=1), "2.5", region="eu", model="b", user="bob", ms="250.49"),
        call(customer, ten + timedelta(minutes=20), "4", region="us", model="a", user="ann", ms="slow"),
        call(customer, ten + timedelta(days=1), "3", id="y", region="us", user="cid", ms="1e3"),
        call(customer, ten + timedelta(days=1), "1", id="z", model='b"]', user=""),
        call(customer, ten + timedelta(days=1), None, region="eu", model="a", ms="9999"),
    ]


EXPECTED = {
    # All six; 7 + 2.5 + 4 + 3 + 1; of five with tokens. 17.5 / 5 = 3.5.
    "calls": "6",
    "tokens": "17.5",
    "most": "7",
    "least": "1",
    "mean": "3.5",
    # ann, bob, cid and the empty one.
    "users": "4",
    # Of y and z, at the same time, z is last; the one without tokens is none.
    "level": "1",
    # The first (250.5) and the last (9999); 250.49 is less, "slow" and "1e3" are no plain numbers.
    "slow-eu": "2",
    "known": "5",
    # Models a, a, b"], a.
    "some": "4",
}


def value(client: Client, customer: str, name: str) -> str:
    return client.query(customer, name, START, END).total.value


def test_each_aggregation_has_its_value(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*month(customer))

    assert {name: value(client, customer, name) for name in EXPECTED} == EXPECTED


def test_windows_and_groups_merge_by_state(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*month(customer))

    def days(name: str, *group_by: str, group_filter: Sequence[str] = ()) -> list[tuple[int, dict[str, str], str]]:
        answer = client.usage.QueryUsage(
            pb.QueryUsageRequest(
                customer_id=customer,
                meter=name,
                start_time=timestamp(START),
                end_time=timestamp(END),
                window=pb.WINDOW_DAY,
                group_by=group_by,
                group_filter=group_filter,
            )
        )
        return [(each.start_time.ToDatetime().day, dict(each.group), each.value.value) for each in answer.windows]

    # ann is in two quarters and two regions of the 10th, and once in the day.
    assert days("users") == [(10, {}, "2"), (11, {}, "2")]
    assert sorted(days("users", "region"), key=str) == [
        (10, {"region": "eu"}, "2"),
        (10, {"region": "us"}, "1"),
        (11, {"region": "us"}, "1"),
        (11, {}, "1"),
    ]
    assert days("most") == [(10, {}, "7"), (11, {}, "3")]
    assert sorted(days("calls", "region"), key=str) == [
        (10, {"region": "eu"}, "2"),
        (10, {"region": "us"}, "1"),
        (11, {"region": "eu"}, "1"),
        (11, {"region": "us"}, "1"),
        (11, {}, "1"),
    ]
    assert days("calls", group_filter=["region=eu"]) == [(10, {}, "2"), (11, {}, "1")]
    # 13.5 / 3 on the 10th and 4 / 2 on the 11th.
    assert days("mean") == [(10, {}, "4.5"), (11, {}, "2")]


def test_edges_from_raw_events_merge_with_buckets(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*month(customer))
    # Without the first event, and without those of the 11th.
    start, end = utc(2026, 3, 10, 10, 0, 30), utc(2026, 3, 11, 10)

    found = {name: client.query(customer, name, start, end).total.value for name in EXPECTED}

    assert found == {
        "calls": "2",
        "tokens": "6.5",
        "most": "4",
        "least": "2.5",
        "mean": "3.25",
        "users": "2",
        "level": "4",
        "slow-eu": "0",
        "known": "2",
        "some": "1",
    }


def test_of_no_events_there_is_no_largest(client: Client) -> None:
    customer = client.put_customer()

    assert value(client, customer, "users") == "0"
    assert not client.query(customer, "most", START, END).HasField("total")


def test_a_seal_has_groups_and_all_of_them_as_one_and_late_usage_merges(client: Client) -> None:
    customer = client.put_customer()
    client.ingest(*month(customer))

    sealed = client.seal(customer, START, END)

    assert {total.meter: total.value.value for total in sealed.merged_totals} == EXPECTED
    users = {
        total.group["region"] if total.group else "": total.value.value
        for total in sealed.totals
        if total.meter == "users"
    }
    assert users == {"eu": "2", "us": "2", "": "1"}
    # What comes late: a smaller maximum, a known user in a region where it was not, an older value.
    client.ingest(call(customer, utc(2026, 3, 2), "6", region="asia", user="ann"))
    again = client.seal(customer, END, utc(2026, 5, 1))
    late = client.usage.ListLateUsage(pb.ListLateUsageRequest(customer_id=customer)).late_usage

    assert not again.totals
    assert [each.period_end_time.ToDatetime().month for each in late] == [4]
    assert late[0] == again.late_usage[0]
    found = {total.meter: Decimal(total.value.value) for total in late[0].merged_totals}
    # 17.5 + 6 = 23.5, of six: 3.916…
    assert found == {
        **{name: Decimal(number) for name, number in EXPECTED.items()},
        "calls": 7,
        "tokens": Decimal("23.5"),
        "mean": Decimal("3.916666666667"),
        "known": 6,
    }
    # The seal's own totals stay.
    assert {total.meter: total.value.value for total in client.seal(customer, START, END).merged_totals} == EXPECTED


def test_corrections_are_taken_out_of_every_state(client: Client) -> None:
    customer = client.put_customer()
    events = month(customer)
    client.ingest(*events)
    cancel(client, events[0])
    amend(client, events[4], call(customer, utc(2026, 3, 11, 10), "9", region="eu", user="dan"))

    found = {name: value(client, customer, name) for name in EXPECTED}

    # Left are 2.5, 4, 3, 9 (the amended one) and the one without tokens; 18.5 / 4 = 4.625. The ids of the last two
    # events at 10:00 on the 11th are y and e…, of which y is last.
    assert found == {
        "calls": "5",
        "tokens": "18.5",
        "most": "9",
        "least": "2.5",
        "mean": "4.625",
        "users": "4",
        "level": "3",
        "slow-eu": "1",
        "known": "4",
        "some": "2",
    }
    sealed = client.seal(customer, START, END)
    assert {total.meter: total.value.value for total in sealed.merged_totals} == found


@pytest.mark.parametrize(
    ("name", "limit", "used"),
    [("most", "7.5", "7"), ("users", "4", "3"), ("calls", "5", "4"), ("mean", "4.5", "4.125")],
)
def test_a_limit_is_compared_with_the_meter_s_value_over_all_groups(
    client: Client, alerts: Alerts, name: str, limit: str, used: str
) -> None:
    now = datetime.now(UTC)
    customer = client.put_customer(limits={name: limit}, thresholds=[70, 120])
    client.ingest(
        call(customer, now, "7", region="eu", user="ann"),
        call(customer, now, "2.5", region="eu", user="bob"),
        call(customer, now, "4", region="us", user="ann"),
        call(customer, now, "3", user="cid"),
    )

    # Of users 3; (7 + 2.5 + 4 + 3) / 4 = 4.125. Each is above 70 % of its limit and below 120 %.
    client.until_used(customer, name, used, answered_from=limits_pb.ANSWERED_FROM_LIVE)
    eventually(lambda: alerts.thresholds(customer) == [(name, 70)])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"quantity": "tokens"}, "meter.quantity"),
        ({"attribute": "user"}, "meter.attribute"),
        ({"aggregation": meters_pb.AGGREGATION_UNIQUE}, "meter.attribute"),
        ({"aggregation": meters_pb.AGGREGATION_MAX}, "meter.quantity"),
        ({"aggregation": 99}, "meter.aggregation"),
        ({"group_by": ["a", "a"]}, "meter.group_by[1]"),
        ({"group_by": ["a\0"]}, "meter.group_by[0]"),
        ({"group_by": [str(number) for number in range(9)]}, "meter.group_by"),
        ({"filters": [filter_("", meters_pb.FILTER_OPERATOR_EXISTS)]}, "meter.filters[0].attribute"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_UNSPECIFIED)]}, "meter.filters[0].operator"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_EXISTS, "b")]}, "meter.filters[0].values"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_IN)]}, "meter.filters[0].values"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_EQUALS, "b", "c")]}, "meter.filters[0].values"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_LESS, "NaN")]}, "meter.filters[0].values[0]"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_LESS, "1" * 41)]}, "meter.filters[0].values[0]"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_EQUALS, "\0")]}, "meter.filters[0].values[0]"),
        ({"filters": [filter_("a", meters_pb.FILTER_OPERATOR_EXISTS)] * 17}, "meter.filters"),
        ({"description": "x" * 1025}, "meter.description"),
    ],
)
def test_what_is_wrong_with_a_meter_is_named(client: Client, changed: dict[str, object], named: str) -> None:
    wanted = {"id": "wrong", "event_type": CALL, "aggregation": meters_pb.AGGREGATION_COUNT, **changed}

    with pytest.raises(grpc.RpcError) as caught:
        client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meters_pb.Meter(**wanted)))  # type: ignore[arg-type]

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert named in str(caught.value.details())


def test_a_meter_shows_its_definition(client: Client) -> None:
    for each in METERS:
        found = client.meters.GetMeter(meters_pb.GetMeterRequest(meter_id=each.id))
        found.ClearField("create_time")
        assert found == each
