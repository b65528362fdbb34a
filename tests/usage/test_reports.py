"""Usage reports and daily costs, with billing's own prices. Expected numbers are worked out by hand beside them.

The plan: base fee 310.00 a period; 100 requests free, then 40 per 1,000 up to 200, 30 up to 400, 20 above; traffic at
8.50 per 10^9 bytes.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import psycopg
import pytest
from eventually import eventually
from google.protobuf import json_format
from google.type import money_pb2
from usage_harness import Alerts, Client, event, timestamp, utc

from meterscope.billing.v1 import catalog_service_pb2 as catalog_pb
from meterscope.billing.v1 import catalog_service_pb2_grpc as catalog_grpc
from meterscope.billing.v1 import customer_service_pb2 as customers_pb
from meterscope.billing.v1 import customer_service_pb2_grpc as customers_grpc
from meterscope.billing.v1 import subscription_service_pb2 as subscriptions_pb
from meterscope.billing.v1 import subscription_service_pb2_grpc as subscriptions_grpc
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import report_service_pb2 as pb
from meterscope.usage.v1 import report_service_pb2_grpc
from services.billing import __main__ as billing_main
from services.billing.settings import Settings as BillingSettings
from services.kit.channel import open_channel
from services.kit.migrate import migrate
from services.kit.money import plain
from services.kit.settings import read
from services.kit.worker import Worker
from services.usage.__main__ import build_server, build_worker
from services.usage.settings import Settings

KOLKATA = ZoneInfo("Asia/Kolkata")
# The last whole month but one, by the clock of Kolkata: its days are 5:30 hours ahead of UTC.
_TODAY = datetime.now(KOLKATA).replace(hour=0, minute=0, second=0, microsecond=0)
THIS_MONTH = _TODAY.replace(day=1)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
MONTH_BEFORE = (LAST_MONTH - timedelta(days=1)).replace(day=1)
NEXT_MONTH = (THIS_MONTH + timedelta(days=32)).replace(day=1)
PERIODS = [(MONTH_BEFORE, LAST_MONTH), (LAST_MONTH, THIS_MONTH), (THIS_MONTH, NEXT_MONTH)]
DAYS = (THIS_MONTH - LAST_MONTH).days


class Billing:
    """Billing's clients."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.catalog = catalog_grpc.CatalogServiceStub(channel)
        self.customers = customers_grpc.CustomerServiceStub(channel)
        self.subscriptions = subscriptions_grpc.SubscriptionServiceStub(channel)

    def plan(self, plan_id: str, fee: int, *, limit: str = "", requests: dict[str, Any] | None = None) -> str:
        """A plan in rupees; the tiers of the module's plan unless told otherwise."""
        tiers = [
            {"up_to": {"value": "200"}, "unit_price": {"value": "40"}},
            {"up_to": {"value": "400"}, "unit_price": {"value": "30"}},
            {"unit_price": {"value": "20"}},
        ]
        graduated = {"meter": "requests", "included": {"value": "100"}, "per": {"value": "1000"}, "tiers": tiers}
        traffic = {"meter": "bytes", "unit_price": {"value": "8.50"}, "per": {"value": "1000000000"}}
        fee_of = {"amount": {"currency_code": "INR", "units": fee}}
        document = {
            "id": plan_id,
            "display_name": plan_id.title(),
            "currency": "INR",
            "interval": "BILLING_INTERVAL_MONTH",
            "components": [
                {"id": "base", "display_name": "Base fee", "flat_fee": fee_of},
                {"id": "requests", "display_name": "Requests", **(requests or {"graduated": graduated})},
                {"id": "bytes", "display_name": "Traffic", "per_unit": traffic},
            ],
            "limits": [{"meter": "requests", "limit": {"value": limit}, "kind": "PLAN_LIMIT_KIND_HARD"}]
            if limit
            else [],
        }
        plan = json_format.ParseDict(document, catalog_pb.Plan())
        return self.catalog.CreatePlan(catalog_pb.CreatePlanRequest(plan=plan)).id

    def customer(self, plan_id: str = "", start: datetime = MONTH_BEFORE) -> str:
        """A customer, on a plan if one is named."""
        wanted = customers_pb.Customer(display_name="Asha", currency="INR", time_zone="Asia/Kolkata")
        customer = self.customers.CreateCustomer(customers_pb.CreateCustomerRequest(customer=wanted)).id
        if plan_id:
            subscription = subscriptions_pb.Subscription(
                customer_id=customer, plan_id=plan_id, start_time=timestamp(start.astimezone(UTC))
            )
            self.subscriptions.CreateSubscription(subscriptions_pb.CreateSubscriptionRequest(subscription=subscription))
        return customer


@pytest.fixture(scope="module")
def environment(environment: dict[str, str]) -> dict[str, str]:
    """Costs are kept up every second."""
    return {**environment, "METERSCOPE_USAGE_COST_SECONDS": "1"}


@pytest.fixture(scope="module")
def billing_address(environment: dict[str, str]) -> Iterator[str]:
    """Billing's server, on a schema of its own."""
    settings = read(BillingSettings, {**environment, "METERSCOPE_BILLING_ADDRESS": "127.0.0.1:0"})
    migrate(settings.database_url, settings.database_schema, billing_main.MIGRATIONS, "billing")
    server = billing_main.build_server(settings)
    yield f"127.0.0.1:{server.start()}"
    server.stop()


@pytest.fixture(scope="module")
def billing(billing_address: str, migrated: Settings) -> Iterator[Billing]:
    with open_channel(billing_address, migrated.kit) as channel:
        billing = Billing(channel)
        billing.plan("web", 310)
        yield billing


@pytest.fixture(scope="module")
def with_billing(migrated: Settings, billing_address: str) -> Settings:
    return replace(migrated, billing_address=billing_address)


@pytest.fixture(scope="module")
def channel(with_billing: Settings) -> Iterator[grpc.Channel]:
    server = build_server(with_billing)
    with open_channel(f"127.0.0.1:{server.start()}", with_billing.kit) as channel:
        yield channel
    server.stop()


@pytest.fixture(scope="module")
def reports(channel: grpc.Channel) -> report_service_pb2_grpc.ReportServiceStub:
    return report_service_pb2_grpc.ReportServiceStub(channel)


@pytest.fixture(scope="module")
def worker(with_billing: Settings) -> Iterator[Worker]:
    worker = build_worker(with_billing, lease=timedelta(seconds=1))
    worker.start()
    yield worker
    worker.stop()


pytestmark = pytest.mark.usefixtures("worker", "meters", "billing")


def used(customer: str, at: datetime, requests: int, size: int = 0) -> list[Any]:
    """So many requests at a moment; the first one carries all bytes."""
    sizes = [size, *([0] * (requests - 1))]
    return [event(customer, time=at.astimezone(UTC), quantities={"bytes": str(each)}) for each in sizes]


def subscribed(client: Client, billing: Billing, plan_id: str, **more: Any) -> str:
    """A customer on a plan, whom usage knows."""
    customer = billing.customer(plan_id)
    periods = [(start.astimezone(UTC), end.astimezone(UTC)) for start, end in PERIODS]
    return client.put_customer(customer, time_zone="Asia/Kolkata", periods=periods, **more)


def report(
    reports: report_service_pb2_grpc.ReportServiceStub,
    customer: str,
    start: datetime | None = LAST_MONTH,
    end: datetime | None = THIS_MONTH,
    **more: Any,
) -> pb.UsageReport:
    request = pb.GetUsageReportRequest(customer_id=customer, **more)
    if start is not None:
        request.start_time.CopyFrom(timestamp(start.astimezone(UTC)))
    if end is not None:
        request.end_time.CopyFrom(timestamp(end.astimezone(UTC)))
    return reports.GetUsageReport(request, timeout=30)


def rupees(message: money_pb2.Money) -> str:
    return f"{Decimal(message.units) + Decimal(message.nanos) / 10**9:.2f}"


def by_day(days: Sequence[pb.MeterDay]) -> dict[str, tuple[str, str]]:
    return {day.date: (day.value.value, day.precise_cost.value) for day in days}


def date(month: datetime, day: int) -> str:
    return f"{month:%Y-%m}-{day:02}"


def test_a_months_days_cost_what_the_tiers_make_of_the_running_total(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(client, billing, "web")
    # 0:10 in Kolkata is the day before in UTC.
    client.ingest(
        *used(customer, LAST_MONTH.replace(day=2, hour=0, minute=10), 150, 1_000_000_000),
        *used(customer, LAST_MONTH.replace(day=2, hour=23, minute=50), 50),
        *used(customer, LAST_MONTH.replace(day=3, hour=12), 201),
        *used(customer, LAST_MONTH.replace(day=20, hour=12), 2, 65_259_072),
        *used(customer, MONTH_BEFORE.replace(day=9), 50),
        *used(customer, THIS_MONTH, 1),
    )
    found = report(reports, customer)
    assert (found.state, found.time_zone) == (pb.REPORT_STATE_READY, "Asia/Kolkata")
    traffic, requests = found.meters
    # Through the 2nd 200: 100 at 40 per 1,000 = 4. Through the 3rd 401: 10.02 (see test_pricing), so 6.02 more.
    # Through the 20th 403: 10.06, so 0.04 more.
    assert by_day(requests.days) == {
        date(LAST_MONTH, 2): ("200", "4"),
        date(LAST_MONTH, 3): ("201", "6.02"),
        date(LAST_MONTH, 20): ("2", "0.04"),
    }
    assert (requests.meter, requests.total.value, requests.unit) == ("requests", "403", "requests")
    # 1 GB at 8.50; 0.065259072 GB make 0.554702112.
    assert by_day(traffic.days) == {
        date(LAST_MONTH, 2): ("1000000000", "8.5"),
        date(LAST_MONTH, 3): ("0", "0"),
        date(LAST_MONTH, 20): ("65259072", "0.554702112"),
    }
    cost = found.cost
    assert (cost.state, cost.currency, cost.plan_id) == (pb.COST_STATE_PRICED, "INR", "web")
    assert [(part.component_id, part.precise_amount.value, rupees(part.amount)) for part in cost.components] == [
        ("base", "310", "310.00"),
        ("bytes", "9.054702112", "9.05"),
        ("requests", "10.06", "10.06"),
    ]
    assert (cost.precise_total.value, rupees(cost.total)) == ("329.114702112", "329.11")
    # What a preview of the whole month says is what the days add up to.
    asked = catalog_pb.PreviewPriceRequest(customer_id=customer)
    asked.quantities["requests"].value, asked.quantities["bytes"].value = "403", "1065259072"
    assert billing.catalog.PreviewPrice(asked).precise_total.value == "329.114702112"
    assert sum(Decimal(day.precise_amount.value) for day in cost.days) == Decimal("329.114702112")


def test_a_flat_fee_is_spread_over_all_days_so_that_they_add_up(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(client, billing, "web")
    found = report(reports, customer)
    days = [Decimal(day.precise_amount.value) for day in found.cost.days]
    assert (len(days), sum(days)) == (DAYS, Decimal(310))
    # All days have 24 hours in Kolkata: no two differ by more than one paisa.
    assert max(days) - min(days) <= Decimal("0.01")
    # Ten days of it: 10 * 10.00 of 31 days, of 30 days 10 * 10.33 or 10.34.
    part = report(reports, customer, LAST_MONTH, LAST_MONTH.replace(day=11))
    assert Decimal(part.cost.precise_total.value) == sum(days[:10])


def test_usage_is_compared_with_the_period_before_and_with_the_time_before_a_range(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(client, billing, "web")
    client.ingest(
        *used(customer, MONTH_BEFORE.replace(day=1), 8),
        *used(customer, LAST_MONTH.replace(day=5), 10),
        *used(customer, LAST_MONTH.replace(day=7), 3),
    )
    (requests,) = (meter for meter in report(reports, customer).meters if meter.meter == "requests")
    # 13 against 8: 5 more, 62.5 %.
    found = requests.trend
    assert (found.current.value, found.previous.value, found.change.value) == ("13", "8", "5")
    assert found.change_percent.value == "62.5"
    assert found.previous_start_time.ToDatetime(tzinfo=UTC) == MONTH_BEFORE
    assert found.previous_end_time.ToDatetime(tzinfo=UTC) == LAST_MONTH
    # Two days from the 7th on against the two before: 3 against 10, 7 less, 70 %.
    two = report(reports, customer, LAST_MONTH.replace(day=7), LAST_MONTH.replace(day=9))
    (requests,) = (meter for meter in two.meters if meter.meter == "requests")
    assert (requests.trend.change.value, requests.trend.change_percent.value) == ("-7", "-70")


def test_an_open_period_is_compared_at_the_same_elapsed_fraction(
    client: Client, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    now = datetime.now(UTC)
    hour = now.replace(minute=0, second=0, microsecond=0)
    # Half of the period is over, to the quarter of an hour.
    start, middle = hour - timedelta(hours=10), hour - timedelta(hours=20)
    end = start + 2 * (now - start)
    end = end.replace(minute=end.minute // 15 * 15, second=0, microsecond=0)
    periods = [(middle, start), (start, end)]
    customer = client.put_customer(periods=periods)
    client.ingest(
        *used(customer, middle + timedelta(hours=1), 4),
        *used(customer, middle + timedelta(hours=8), 100),
        *used(customer, start + timedelta(hours=1), 6),
    )
    found = report(reports, customer, None, None)
    (requests,) = (meter for meter in found.meters if meter.meter == "requests")
    # Five of the ten hours before are compared, and an hour or so of rounding: the 100 in the ninth are not.
    assert (requests.trend.current.value, requests.trend.previous.value) == ("6", "4")
    assert requests.trend.change_percent.value == "50"
    assert found.cost.state == pb.COST_STATE_NO_PLAN
    assert not requests.days[0].HasField("precise_cost")


def test_the_cheapest_plan_that_holds_the_usage_is_recommended(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    def per_request(price: str) -> dict[str, Any]:
        return {"per_unit": {"meter": "requests", "unit_price": {"value": price}}}

    billing.plan("starter", 0, limit="100", requests=per_request("1"))
    billing.plan("professional", 50, limit="1000", requests=per_request("0.5"))
    billing.plan("callcentre", 500, requests=per_request("0.1"))
    customer = subscribed(client, billing, "starter", limits={"requests": "100"})
    client.ingest(*used(customer, LAST_MONTH.replace(day=5), 90), *used(customer, LAST_MONTH.replace(day=6), 60))
    found = report(reports, customer).recommendation
    options = {option.plan_id: option for option in found.plans}
    # 150 requests: starter 150 but its limit does not hold them; professional 50 + 75; call centre 500 + 15;
    # web 310 + 50 * 0.04 = 312.
    expected = {"starter": "150.00", "professional": "125.00", "callcentre": "515.00", "web": "312.00"}
    assert {name: rupees(options[name].total) for name in expected} == expected
    assert [options[name].fits for name in expected] == [False, True, True, True]
    assert list(options["starter"].exceeded_meters) == ["requests"]
    assert options["starter"].current
    assert (found.action, found.plan_id) == (pb.RECOMMENDED_ACTION_UPGRADE, "professional")
    assert rupees(found.saving) == "25.00"
    assert "requests" in " ".join(found.reasons)
    assert not found.periods[0].projected

    # 20 requests: starter 20, professional 60. Whoever is on the dearer one may go down.
    other = subscribed(client, billing, "professional")
    client.ingest(*used(other, LAST_MONTH.replace(day=5), 20))
    down = report(reports, other).recommendation
    assert (down.action, down.plan_id, rupees(down.saving)) == (pb.RECOMMENDED_ACTION_DOWNGRADE, "starter", "40.00")

    # 99 requests on starter cost 99, on professional 99.50: stay.
    third = subscribed(client, billing, "starter")
    client.ingest(*used(third, LAST_MONTH.replace(day=5), 99))
    stay = report(reports, third).recommendation
    assert (stay.action, stay.plan_id) == (pb.RECOMMENDED_ACTION_STAY, "starter")
    assert not stay.HasField("saving")


def test_compliance_says_when_a_limit_was_exceeded_by_how_much_and_what_is_missing(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(
        client, billing, "web", limits={"requests": "100", "bytes": "1000"}, kind=limits_pb.LIMIT_KIND_SOFT
    )
    client.ingest(
        *used(customer, LAST_MONTH.replace(day=5, hour=10), 100),
        *used(customer, LAST_MONTH.replace(day=6, hour=10, minute=20), 7, 1000),
    )
    found = report(reports, customer).compliance
    assert not found.limits_kept
    kept = {limit.meter: limit for limit in found.limits}
    # The 101st request came at 10:20 of the 6th; 1,000 bytes are the limit and not above it.
    requests = kept["requests"]
    assert (requests.used.value, requests.excess.value, requests.exceeded) == ("107", "7", True)
    assert requests.exceed_time.ToDatetime(tzinfo=UTC) == LAST_MONTH.replace(day=6, hour=10, minute=15)
    assert requests.kind == limits_pb.LIMIT_KIND_SOFT
    assert (kept["bytes"].used.value, kept["bytes"].exceeded) == ("1000", False)
    assert found.data_complete
    assert found.as_of.ToDatetime(tzinfo=UTC) > datetime.now(UTC) - timedelta(minutes=1)
    client.ingest(event(customer, type="nobody.counts.this", time=LAST_MONTH.astimezone(UTC)))
    found = report(reports, customer).compliance
    assert (found.data_complete, found.quarantined_events) == (False, 1)


def test_a_report_is_also_a_table_for_spreadsheets(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(client, billing, "web")
    client.ingest(*used(customer, LAST_MONTH.replace(day=2), 101))
    document = report(reports, customer, format="csv").document
    assert document.content_type == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(document.data.decode())))
    second = [row for row in rows if row["date"] == date(LAST_MONTH, 2)]
    assert [(row["meter"], row["value"], row["cost"]) for row in second[:2]] == [
        ("bytes", "0", "0"),
        ("requests", "101", "0.04"),
    ]
    assert len(rows) == 2 + DAYS
    assert not report(reports, customer).HasField("document")


def test_meters_with_groups_are_broken_down_by_them_and_other_aggregations_are_what_they_are(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    grouped = meters_pb.Meter(
        id="by-region", event_type="disk", aggregation=meters_pb.AGGREGATION_SUM, quantity="gb", group_by=["region"]
    )
    highest = meters_pb.Meter(id="peak", event_type="disk", aggregation=meters_pb.AGGREGATION_MAX, quantity="gb")
    for meter in (grouped, highest):
        client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))
    billing.plan("by-peak", 0, requests={"per_unit": {"meter": "peak", "unit_price": {"value": "2"}}})
    customer = subscribed(client, billing, "by-peak")

    def disk(day: int, region: str, size: str) -> Any:
        time = LAST_MONTH.replace(day=day, hour=12).astimezone(UTC)
        return event(customer, type="disk", time=time, quantities={"gb": size}, attributes={"region": region})

    client.ingest(disk(2, "eu", "5"), disk(2, "us", "7"), disk(2, "eu", "1"), disk(4, "us", "3"), disk(6, "eu", "9.5"))
    found = report(reports, customer)
    meters = {meter.meter: meter for meter in found.meters}
    # eu 5 + 1 + 9.5, us 7 + 3.
    assert shares(meters["by-region"].groups) == [("eu", "15.5"), ("us", "10")]
    second, fourth, sixth = meters["by-region"].days
    assert (shares(second.groups), second.value.value) == ([("us", "7"), ("eu", "6")], "13")
    assert (shares(fourth.groups), shares(sixth.groups)) == ([("us", "3")], [("eu", "9.5")])
    # The highest through the 2nd is 7, on the 4th it stays, on the 6th it is 9.5: 14.00 and then 5.00 more.
    peak = meters["peak"]
    assert peak.total.value == "9.5"
    assert [(day.value.value, day.precise_cost.value) for day in peak.days] == [("7", "14"), ("3", "0"), ("9.5", "5")]
    assert found.cost.precise_total.value == "19"
    rows = list(csv.DictReader(io.StringIO(report(reports, customer, format="csv").document.data.decode())))
    assert [(row["group"], row["value"]) for row in rows if row["group"]] == [
        ("region=us", "7"),
        ("region=eu", "6"),
        ("region=us", "3"),
        ("region=eu", "9.5"),
    ]


def shares(groups: Sequence[pb.GroupValue]) -> list[tuple[str, str]]:
    return [(each.group["region"], each.value.value) for each in groups]


def test_a_long_range_is_made_by_a_job_and_asked_for_again_by_its_id(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(client, billing, "web")
    client.ingest(*used(customer, MONTH_BEFORE.replace(day=5), 101), *used(customer, LAST_MONTH.replace(day=5), 201))
    start, end = THIS_MONTH - timedelta(days=200), THIS_MONTH
    first = report(reports, customer, start, end)
    assert first.state == pb.REPORT_STATE_RUNNING
    assert report(reports, customer, start, end).id == first.id

    def made() -> pb.UsageReport | None:
        found = report(reports, customer, None, None, report_id=first.id)
        return found if found.state == pb.REPORT_STATE_READY else None

    found = eventually(made)
    assert (found.id, found.progress_percent) == (first.id, 100)
    (requests,) = (meter for meter in found.meters if meter.meter == "requests")
    # Each month has tiers of its own: 101 cost 0.04, 201 cost 4.03.
    assert by_day(requests.days) == {date(MONTH_BEFORE, 5): ("101", "0.04"), date(LAST_MONTH, 5): ("201", "4.03")}
    # Two periods with a plan; before them there was none.
    assert found.cost.precise_total.value == "624.07"
    # Two meters and as many base fees as there are days, whole.
    table = report(reports, customer, start, end, format="csv")
    assert table.id == first.id
    assert table.document.data.startswith(b'"date","meter","group","value","unit","cost","currency"\r\n')
    # What the document has is not sent a second time.
    assert not table.meters
    with pytest.raises(grpc.RpcError) as refused:
        report(reports, client.put_customer(), None, None, report_id=first.id)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


def test_costs_by_day_are_kept_up_without_being_asked_for(
    client: Client, billing: Billing, reports: report_service_pb2_grpc.ReportServiceStub
) -> None:
    customer = subscribed(client, billing, "web")
    day = LAST_MONTH.replace(day=4)
    client.ingest(*used(customer, day, 101))

    def cost_of(wanted: str) -> pb.DailyCost | None:
        request = pb.ListDailyCostsRequest(
            customer_id=customer, start_date=date(LAST_MONTH, 4), end_date=date(LAST_MONTH, 5)
        )
        listed = reports.ListDailyCosts(request).daily_costs
        return next((cost for cost in listed if cost.precise_amount.value == wanted), None)

    # A day's share of the base fee (10.00 of 31 days; of 30 days 10.33 or 10.34), and one request at 0.04.
    fee = Decimal(310) / DAYS
    shares = {fee.quantize(Decimal("0.01"), rounding=way) for way in ("ROUND_DOWN", "ROUND_UP")}

    def any_of(requests: str) -> pb.DailyCost | None:
        found = (cost_of(plain(share + Decimal(requests))) for share in shares)
        return next((cost for cost in found if cost), None)

    first = eventually(lambda: any_of("0.04"))
    assert (first.date, first.currency) == (date(LAST_MONTH, 4), "INR")
    # Later usage of the same day: 201 cost 4.03.
    client.ingest(*used(customer, day, 100))
    eventually(lambda: any_of("4.03"))
    # All pages together are the days of the customer.
    token, days = "", []
    while True:
        page = reports.ListDailyCosts(pb.ListDailyCostsRequest(customer_id=customer, page_size=20, page_token=token))
        days += [cost.date for cost in page.daily_costs]
        token = page.next_page_token
        if not token:
            break
    assert days == sorted(set(days))
    assert {date(LAST_MONTH, 1), date(LAST_MONTH, DAYS)} <= set(days)


def test_a_period_that_costs_far_more_than_the_one_before_is_told_once(
    client: Client, billing: Billing, alerts: Alerts
) -> None:
    billing.plan("by-request", 7, requests={"per_unit": {"meter": "requests", "unit_price": {"value": "1"}}})
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    # A third of the period of 30 days is over, and less than a day more: of 9 a day the period before had cost 90 to 99
    # by then. 2.5 times that are 225 to 247.5.
    start = today - timedelta(days=10)
    periods = [(start - timedelta(days=30), start), (start, start + timedelta(days=30))]
    before = [event for day in range(30) for event in used_of(periods[0][0] + timedelta(days=day), 9)]

    def customer(requests: int) -> str:
        name = client.put_customer(billing.customer("by-request", periods[0][0]), periods=periods)
        for each in before:
            each.customer_id = name
        client.ingest(*before, *used(name, start, requests))
        return name

    calm, wild = customer(224), customer(249)
    eventually(lambda: [each for each in alerts.raised.values() if each.customer_id == wild])
    client.ingest(*used(wild, start, 10))
    last = client.put_customer(billing.customer("by-request", periods[0][0]), periods=periods)
    client.ingest(*[event(last, time=each.time.ToDatetime(tzinfo=UTC)) for each in before], *used(last, start, 300))
    # The one that moved last is told last.
    eventually(lambda: [each for each in alerts.raised.values() if each.customer_id == last])
    (told,) = [each for each in alerts.raised.values() if each.customer_id == wild]
    assert (told.type, told.data["cost"], told.data["currency"]) == ("cost_spike", "249", "INR")
    assert 90 <= float(str(told.data["before"])) <= 99
    assert not [each for each in alerts.raised.values() if each.customer_id == calm]


def used_of(day: datetime, requests: int) -> list[Any]:
    """So many requests of nobody in particular yet."""
    return used("cus_to_be_named", day, requests)


def test_the_last_known_cost_is_shown_when_billing_is_away(
    client: Client,
    billing: Billing,
    reports: report_service_pb2_grpc.ReportServiceStub,
    with_billing: Settings,
    sql: psycopg.Connection[tuple[object, ...]],
) -> None:
    customer = subscribed(client, billing, "web")
    client.ingest(*used(customer, LAST_MONTH.replace(day=2), 101))
    assert report(reports, customer).cost.precise_total.value == "310.04"
    fresh = subscribed(client, billing, "web")
    # The job has nothing left to do: it would price again what is made to look outdated below.
    behind = """
        SELECT FROM period_totals AS t, costing AS c WHERE (t.generation, t.position) > (c.generation, c.position)
    """
    eventually(lambda: not sql.execute(behind).fetchall())
    # A server of usage that finds nobody where billing should be.
    server = build_server(replace(with_billing, billing_address="127.0.0.1:1"))
    with open_channel(f"127.0.0.1:{server.start()}", with_billing.kit) as channel:
        alone = report_service_pb2_grpc.ReportServiceStub(channel)
        sql.execute("UPDATE cost_periods SET digest = gen_random_uuid()")  # as after further usage
        sql.execute("DELETE FROM cost_periods USING customers WHERE customer = number AND id = %s", [fresh])
        found = report(alone, customer)
        unknown = report(alone, fresh)
    server.stop()
    assert (found.cost.state, found.cost.precise_total.value) == (pb.COST_STATE_STALE, "310.04")
    assert found.cost.as_of.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    assert found.recommendation.action == pb.RECOMMENDED_ACTION_UNSPECIFIED
    assert "Billing" in found.recommendation.reasons[0]
    assert unknown.cost.state in {pb.COST_STATE_UNKNOWN, pb.COST_STATE_STALE}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"customer_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"customer_id": "cus_nobody"}, grpc.StatusCode.NOT_FOUND),
        ({"customer_id": "a\0"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"format": "pdf"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"report_id": "rep_none"}, grpc.StatusCode.NOT_FOUND),
        ({"start_time": timestamp(utc(2026, 1, 2)), "end_time": timestamp(utc(2026, 1, 1))}, None),
        ({"start_time": timestamp(utc(2026, 1, 1, 0, 1)), "end_time": timestamp(utc(2026, 1, 2))}, None),
        ({"start_time": timestamp(utc(2001, 1, 1)), "end_time": timestamp(utc(2026, 1, 2))}, None),
        ({"start_time": timestamp(utc(9999, 1, 1))}, None),
    ],
)
def test_what_is_no_report_is_refused(
    client: Client,
    reports: report_service_pb2_grpc.ReportServiceStub,
    fields: dict[str, Any],
    code: grpc.StatusCode | None,
) -> None:
    customer = client.put_customer("cus_refused_reports")
    with pytest.raises(grpc.RpcError) as refused:
        reports.GetUsageReport(pb.GetUsageReportRequest(**{"customer_id": customer, **fields}))
    assert refused.value.code() == (code or grpc.StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize(
    "fields",
    [{"start_date": "yesterday"}, {"end_date": "2026-02-30"}, {"page_size": -1}, {"page_token": "x"}],
)
def test_what_is_no_page_of_costs_is_refused(
    reports: report_service_pb2_grpc.ReportServiceStub, fields: dict[str, Any]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        reports.ListDailyCosts(pb.ListDailyCostsRequest(**fields))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
