"""Limits of customers without a plan: a setting of the worker, in force for all, visible as what they are."""

from dataclasses import replace
from datetime import timedelta

import pytest
from eventually import eventually
from usage_harness import Alerts, Client, event

from meterscope.alerts.v1 import alert_service_pb2
from meterscope.usage.v1 import limit_service_pb2 as pb
from services.kit.settings import SettingsError, read
from services.kit.worker import Worker
from services.usage.__main__ import build_worker
from services.usage.settings import Settings

pytestmark = pytest.mark.usefixtures("meters")


@pytest.fixture(scope="module")
def environment(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"METERSCOPE_USAGE_DEFAULT_LIMITS": "requests=10, bytes=1e3"}


@pytest.fixture(scope="module")
def default_worker(client: Client, meters: None, worker: Worker) -> None:  # noqa: ARG001 - both have to be there
    """The worker, once it has put the setting in force."""
    customer = client.put_customer(has_plan=False)
    eventually(lambda: client.check(customer, "requests").kind == pb.LIMIT_KIND_DEFAULT)


def listed(client: Client, customer: str) -> list[tuple[str, str, int]]:
    limits = client.limits.ListLimits(pb.ListLimitsRequest(customer_id=customer)).limits
    return [(each.meter, each.limit.value, each.kind) for each in limits]


@pytest.mark.usefixtures("default_worker")
def test_a_customer_without_a_plan_has_the_defaults(client: Client) -> None:
    customer = client.put_customer(has_plan=False)

    assert listed(client, customer) == [
        ("bytes", "1000", pb.LIMIT_KIND_DEFAULT),
        ("requests", "10", pb.LIMIT_KIND_DEFAULT),
    ]
    answer = client.check(customer, "requests", "11")
    assert (answer.allowed, answer.limit.value, answer.kind) == (False, "10", pb.LIMIT_KIND_DEFAULT)
    assert client.check(customer, "requests", "10").allowed
    # They hold for reservations too.
    client.reserve(customer, "requests", "10")


@pytest.mark.usefixtures("default_worker")
def test_a_plan_ends_the_defaults_and_a_limit_of_the_customers_own_stands_before_them(client: Client) -> None:
    planned = client.put_customer(limits={"requests": "7"})
    own = client.put_customer(limits={"requests": "7"}, has_plan=False)

    assert listed(client, planned) == [("requests", "7", pb.LIMIT_KIND_HARD)]
    assert client.check(planned, "bytes").kind == pb.LIMIT_KIND_NONE
    assert listed(client, own) == [("bytes", "1000", pb.LIMIT_KIND_DEFAULT), ("requests", "7", pb.LIMIT_KIND_DEFAULT)]

    client.put_customer(own, revision=2, limits={"requests": "7"}, has_plan=True)
    eventually(lambda: listed(client, own) == [("requests", "7", pb.LIMIT_KIND_HARD)])
    client.put_customer(own, revision=3, has_plan=False)
    eventually(lambda: listed(client, own)[1:] == [("requests", "10", pb.LIMIT_KIND_DEFAULT)])


@pytest.mark.usefixtures("default_worker")
def test_thresholds_of_a_default_are_raised(client: Client, alerts: Alerts) -> None:
    customer = client.put_customer(has_plan=False)
    planned = client.put_customer()
    client.ingest(*[event(customer) for _ in range(8)], *[event(planned) for _ in range(8)])
    eventually(lambda: alerts.thresholds(customer) == [("requests", 80)])
    client.ingest(*[event(customer) for _ in range(2)])
    eventually(lambda: len(alerts.thresholds(customer)) == 3)

    # 8 of 10 reaches 80 %, 10 of 10 the others.
    assert alerts.thresholds(customer) == [("requests", 80), ("requests", 95), ("requests", 100)]
    full = next(
        each for each in alerts.raised.values() if each.customer_id == customer and each.data["threshold"] == 100
    )
    assert (full.data["kind"], full.severity) == ("DEFAULT", alert_service_pb2.SEVERITY_CRITICAL)
    assert alerts.thresholds(planned) == []


@pytest.mark.usefixtures("default_worker")
def test_losing_the_plan_judges_the_defaults_at_once(client: Client, alerts: Alerts) -> None:
    customer = client.put_customer()
    client.ingest(*[event(customer) for _ in range(9)])
    client.total(customer, "requests")
    assert alerts.thresholds(customer) == []

    client.put_customer(customer, revision=2, has_plan=False)

    eventually(lambda: alerts.thresholds(customer) == [("requests", 80)])


@pytest.mark.usefixtures("default_worker")
def test_other_defaults_judge_all_whom_they_are_for_anew(
    client: Client, worker: Worker, migrated: Settings, alerts: Alerts
) -> None:
    """The last test here: it replaces the worker, as an operator would who changes the setting."""
    customer, planned = client.put_customer(has_plan=False), client.put_customer(limits={"requests": "1000"})
    client.ingest(*[event(customer) for _ in range(5)], *[event(planned) for _ in range(5)])
    client.total(customer, "requests")
    assert client.check(customer, "requests").limit.value == "10"
    assert alerts.thresholds(customer) == []
    worker.stop()

    other = build_worker(replace(migrated, default_limits_=("requests=5.2",)), lease=timedelta(seconds=1))
    other.start()
    try:
        # 5 of 5.2 are 96.2 %.
        eventually(lambda: alerts.thresholds(customer) == [("requests", 80), ("requests", 95)])
        eventually(lambda: client.check(customer, "requests").limit.value == "5.2")
        assert listed(client, customer) == [("requests", "5.2", pb.LIMIT_KIND_DEFAULT)]
        assert alerts.thresholds(planned) == []
    finally:
        other.stop()


@pytest.mark.parametrize(
    "value",
    ["requests", "requests=", "requests=many", "requests=-1", "requests=NaN", "Requests=1", "=1", "a=1,a=2", "a=1=2"],
)
def test_a_malformed_setting_fails_by_its_name(environment: dict[str, str], value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(Settings, environment | {"METERSCOPE_USAGE_DEFAULT_LIMITS": value})
    assert "METERSCOPE_USAGE_DEFAULT_LIMITS" in str(caught.value)
