"""The rules on the real Prometheus: all are evaluated without an error, over what Meterscope really sends."""

from typing import Any

import httpx
import pytest
from eventually import eventually

from tests.e2e.running import Running
from tests.rules.rule_files import ALERTS, RULES, Rule
from tests.stack.conftest import RealStack

pytestmark = pytest.mark.stack

# What must be there; a minute after the start none of it may be missed.
ABSENCE = [alert for alert in ALERTS if alert.is_about_absence]


def asked(stack: RealStack, what: str) -> dict[str, Any]:
    answer = httpx.get(f"http://{stack.addresses['Prometheus']}/api/v1/{what}", timeout=30).raise_for_status()
    found: dict[str, Any] = answer.json()["data"]
    return found


def evaluated(stack: RealStack) -> list[dict[str, Any]]:
    return [rule for group in asked(stack, "rules")["groups"] for rule in group["rules"]]


def test_every_rule_is_loaded_and_evaluated_without_an_error(stack: RealStack) -> None:
    # Every five minutes: its turn may come after the test.
    slow = {"meterscope:slo_burn:rate30d"}

    def healthy() -> bool:
        rules = evaluated(stack)
        assert not [rule for rule in rules if rule["health"] == "err"], "a rule cannot be evaluated"
        return {rule["name"] for rule in rules if rule["health"] != "ok"} <= slow

    eventually(healthy, seconds=90)
    assert sorted(rule["name"] for rule in evaluated(stack)) == sorted(rule.name for rule in RULES)


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize(
    "query",
    [
        'up{job="redis"} == 1',
        'up{job="database", service_name="billing-worker"} == 1',
        'telecom_billing_jobs_total{job_name="delete_expired_rows", status="success"} > 0',
        'telecom_billing_db_connection_pool{service="usage", status="idle"}',
        # One to one: as many series as the one that it stands for.
        "count(telecom_billing_jobs_total) == count(billing_jobs_total)",
    ],
)
def test_older_names_are_recorded(stack: RealStack, query: str) -> None:
    eventually(lambda: stack.samples(query), seconds=90)


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("alert", ABSENCE, ids=str)
def test_nothing_is_missed_while_everything_runs(stack: RealStack, alert: Rule) -> None:
    eventually(lambda: stack.samples(alert.expr) == [], seconds=90)


@pytest.mark.undisturbed
def test_a_promise_is_about_the_requests_that_come(stack: RealStack, up: Running) -> None:
    httpx.get(f"http://{up.run['gateway']}/v1/customers").raise_for_status()
    requests = 'meterscope:slo_requests:rate5m{slo="gateway-availability"} > 0'
    eventually(lambda: stack.samples(requests), seconds=90)
    eventually(lambda: stack.samples('meterscope:slo_burn:rate5m{slo="gateway-availability"} == 0'), seconds=90)


def test_links_have_no_place_among_an_alert_s_labels(stack: RealStack) -> None:
    assert not [alert for alert in asked(stack, "alerts")["alerts"] if "grafana_url" in alert["labels"]]
