"""Prometheus' rules ask only for what is there, and each alert is tested, explained and leads somewhere.

What the rules answer is held by promtool (`make check`): otel-collector/prometheus/tests.
"""

import ast
import re
from functools import cache
from pathlib import Path

import click
import promql_parser
import pytest
import yaml

from meterscope.cli import main
from meterscope.usage.v1 import call_record_service_pb2, event_service_pb2
from scripts.foreign_series import FOREIGN_SERIES, RESOURCE_LABELS
from scripts.instruments import series as declared_series
from services.kit.instruments import Counter, Gauge, Histogram
from tests.dashboards.promql_reading import AGGREGATIONS, selectors
from tests.rules.rule_files import ALERTS, PROMETHEUS, RECORDED, ROOT, RULES, RUNBOOKS, Rule, load_tests

DECLARED = declared_series()
# In the catalogue, and asked for under their older names; they come with their services.
LATER = {
    "billing_active_users",
    "billing_invoices_overdue",
    "billing_invoices_overdue_critical",
    "billing_last_payout_job_timestamp",
    "billing_payout_duration_seconds_bucket",
    "billing_payout_duration_seconds_count",
    "billing_payout_duration_seconds_sum",
    "billing_payouts_total",
}
ENVIRONMENT = "deployment_environment_name"
PROCESSES = {"gateway"} | {
    f"{service}{role}" for service in ("usage", "billing", "payments", "alerts") for role in ("", "-worker")
}
LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "log", "uncaught"}
ALIASES = [rule for rule in RULES if rule.file == "older_names"]
OTHERS = [rule for rule in RULES if rule.file != "older_names"]


def labels_of(name: str) -> set[str]:
    """Every label that a series may have; fails for one that nobody declares."""
    if name in DECLARED:
        bucket = {"le"} if name.endswith("_bucket") else set()
        return {*DECLARED[name].prometheus_labels, *RESOURCE_LABELS, *bucket}
    if name in FOREIGN_SERIES:
        return {*FOREIGN_SERIES[name], *RESOURCE_LABELS}
    assert name in RECORDED, f"{name} is declared by no metrics.py, no rule and not in scripts/foreign_series.py"
    return {label for rule in RULES if rule.name == name for label in rule.content.get("labels", {})} | {
        "slo",
        ENVIRONMENT,
    }


def check_query(query: str) -> None:
    """Fail where a query asks for a series, a label or a label's value that nobody makes."""
    made_here = set(re.findall(r'label_replace\(.*?, "(\w+)", "', query, flags=re.DOTALL))
    for asked in selectors(query):
        assert set(asked.labels) | (set(asked.grouped) - made_here) <= labels_of(asked.name), asked
    for selector in found(query):
        declaration = DECLARED.get(selector.name or "")
        for matcher in selector.matchers.matchers:
            if matcher.name == "job":
                assert any(re.fullmatch(matcher.value, f"meterscope/{process}") for process in PROCESSES), str(matcher)
            if matcher.name == "le":
                assert isinstance(declaration, Histogram)
                assert float(matcher.value) in declaration.boundaries
            for label in declaration.labels if declaration else ():
                if label.prometheus_name == matcher.name and label.values and matcher.name != "route":
                    values = set(matcher.value.split("|"))
                    assert values <= set(label.values), f"{selector.name}: {matcher} is none of {label.values}"


def found(query: str) -> list[promql_parser.VectorSelector]:
    nodes: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            nodes.append(node)
        if isinstance(node, promql_parser.MatrixSelector):
            nodes.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(query), visit)
    return nodes


@pytest.mark.parametrize("rule", OTHERS, ids=str)
def test_a_rule_asks_for_declared_series_labels_and_values(rule: Rule) -> None:
    check_query(rule.expr)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("billing_nothing", "declared by no metrics.py"),
        ("sum by (nothing) (rate(billing_jobs_total[5m]))", "nothing"),
        ('sum(rate(billing_jobs_total{nothing="x"}[5m]))', "nothing"),
        ('sum(rate(billing_jobs_total{status="broken"}[5m]))', "broken"),
        ('absent_over_time(process_memory_usage_bytes{job="meterscope/nothing"}[2m])', "nothing"),
        ('sum(rate(billing_http_request_duration_seconds_bucket{le="0.3"}[5m]))', "0.3"),
    ],
)
def test_the_check_of_queries_finds(query: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        check_query(query)


def test_an_older_name_is_one_series_of_its_own_never_a_sum() -> None:
    asked = {}
    for rule in ALIASES:
        (selector,) = found(rule.expr)
        bare = promql_parser.parse(rule.expr)
        assert isinstance(bare, promql_parser.VectorSelector) or rule.name == "up"
        asked[rule.name] = selector.name
        parts = ("_bucket", "_count", "_sum")
        assert rule.name.endswith(parts) == selector.name.endswith(parts)
    assert {name for name in asked.values() if name not in DECLARED} == LATER
    # A histogram is only of use whole.
    histograms = {name.removesuffix("_bucket") for name in asked if name.endswith("_bucket")}
    for name in histograms:
        assert {f"{name}_{part}" for part in ("bucket", "count", "sum")} <= set(asked)


@pytest.mark.parametrize("rule", OTHERS, ids=str)
def test_each_kind_of_instrument_is_read_in_its_form(rule: Rule) -> None:
    for asked in selectors(rule.expr):
        declaration = DECLARED.get(asked.name)
        # Whether it is there at all.
        if asked.within[-1:] in {("absent_over_time",), ("last_over_time",), ("group",)}:
            continue
        if isinstance(declaration, Counter | Histogram):
            assert asked.within[-2:] in (("sum", "rate"), ("sum", "increase")), asked
        if asked.name.endswith("_bucket") and "histogram_quantile" in asked.within:
            assert "le" in asked.grouped
        if isinstance(declaration, Gauge):
            # One process of several may still show what it read last; of a machine's processors it is the mean.
            assert "max" in asked.within or (asked.name, asked.within[-1]) == ("system_cpu_utilization_ratio", "avg")


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_a_share_or_a_quantile_asks_for_a_least_number(alert: Rule) -> None:
    is_share = any(
        {"/", "rate"} <= set(asked.within) or "histogram_quantile" in asked.within or ":slo_burn:" in asked.name
        for asked in selectors(alert.expr)
    )
    assert is_share == (re.search(r">= \d{2,3}\b", alert.expr) is not None)


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_what_must_be_there_is_missed_when_it_is_gone(alert: Rule) -> None:
    assert alert.is_about_absence == alert.name.endswith(("Down", "Missing", "Stopped", "Unchecked"))


@pytest.mark.parametrize("rule", OTHERS, ids=str)
def test_environments_are_never_added_up(rule: Rule) -> None:
    for asked in selectors(rule.expr):
        if set(asked.within) & AGGREGATIONS:
            assert ENVIRONMENT in asked.grouped, asked
    for labels in re.findall(r"\b(?:on|ignoring) \(([^)]*)\)", rule.expr):
        # A budget is the same everywhere.
        assert ENVIRONMENT in labels or labels == "slo"


def test_every_process_is_expected_in_every_environment() -> None:
    jobs = [rule.content["labels"]["job"] for rule in RULES if rule.name == "meterscope:process:expected"]
    assert sorted(jobs) == sorted(f"meterscope/{process}" for process in PROCESSES)


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_an_alert_says_how_bad_it_is_what_it_is_and_where_to_go_on(alert: Rule) -> None:
    assert set(alert.content["labels"]) == {"severity"}
    assert alert.content["labels"]["severity"] in {"info", "warning", "critical"}
    annotations = alert.content["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert annotations["runbook_url"] == f"{{{{ $externalLabels.runbooks_url }}}}docs/runbooks/{alert.name}.md"
    base, _, place = annotations["dashboard_url"].partition("/d/")
    assert base == "{{ $externalLabels.grafana_url }}"
    assert (ROOT / f"otel-collector/grafana/dashboards/{place.partition('?')[0]}.json").exists()
    assert annotations["description"].removesuffix("{{ end }}").endswith(".")


@pytest.mark.parametrize("alert", ALERTS, ids=str)
def test_promtool_is_told_when_an_alert_fires_and_when_it_stays_quiet(alert: Rule) -> None:
    mine = [each for each in load_tests() if each["alertname"] == alert.name]
    assert any(each.get("exp_alerts") for each in mine)
    assert any(not each.get("exp_alerts") for each in mine)


def test_an_alert_s_name_is_its_own_and_what_is_tested_is_there() -> None:
    names = [alert.name for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert {each["alertname"] for each in load_tests()} <= set(names)
    tested = {path.name for path in (PROMETHEUS / "tests").glob("*.yml")}
    assert tested == {path.name for path in (PROMETHEUS / "rules").glob("*.yml")}


def test_who_must_be_there_is_known_before_others_are_asked_about() -> None:
    for path in sorted((PROMETHEUS / "tests").glob("*.yml")):
        test = yaml.safe_load(path.read_text())
        rules = [yaml.safe_load((path.parent / name).read_text()) for name in test["rule_files"]]
        groups = {group["name"] for each in rules for group in each["groups"]}
        # To promtool a group that is not in the order is as early as the first.
        if "environments" in groups:
            assert test["group_eval_order"][0] == "environments"
            assert set(test["group_eval_order"]) == groups


def test_the_promise_of_ingest_is_about_the_methods_that_bring_usage() -> None:
    methods = {
        f"{service.full_name}/{method.name}"
        for module in (event_service_pb2, call_record_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    patterns = {
        matcher.value
        for rule in RULES
        for selector in found(rule.expr)
        for matcher in selector.matchers.matchers
        if matcher.name == "rpc_method"
    }
    (pattern,) = patterns
    assert {name.rpartition("/")[2] for name in methods if re.fullmatch(pattern, name)} == {
        "IngestEvents",
        "StreamEvents",
        "IngestCallRecords",
        "ImportCallRecords",
    }


def test_addresses_come_from_the_environment_and_go_on_no_alert() -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    external = configuration["global"]["external_labels"]
    assert external == {"runbooks_url": "${RUNBOOKS_URL}", "grafana_url": "${GRAFANA_URL}"}
    (relabel,) = configuration["alerting"]["alert_relabel_configs"]
    assert relabel["action"] == "labeldrop"
    assert all(re.fullmatch(relabel["regex"], name) for name in external)


def runbooks() -> list[Path]:
    return sorted(path for path in RUNBOOKS.glob("*.md") if path.stem != "README")


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    assert {path.stem for path in runbooks()} == {alert.name for alert in ALERTS}


@pytest.mark.parametrize("path", runbooks(), ids=lambda path: path.stem)
def test_a_runbook_says_what_it_means_how_to_look_and_what_to_do(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == ["What it means", "How to look", "What to do"]
    assert f"({path.name})" in (RUNBOOKS / "README.md").read_text()


def queries() -> list[str]:
    return [
        line
        for path in sorted(RUNBOOKS.glob("*.md"))
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), flags=re.DOTALL)
        for line in block.splitlines()
        if line
    ]


@pytest.mark.parametrize("query", queries())
def test_a_runbook_s_queries_ask_for_what_is_there(query: str) -> None:
    check_query(query)


@cache
def logged() -> set[str]:
    """Every message that a process may log, as it is in the code."""
    calls = (
        node
        for folder in ("services", "gateway", "meterscope")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    said = (call.args for call in calls if call.func.attr in LOGGING)
    return {str(each.value) for texts in said for each in texts if isinstance(each, ast.Constant)}


@pytest.mark.parametrize("path", runbooks(), ids=lambda path: path.stem)
def test_the_words_that_a_runbook_looks_for_in_logs_are_those_of_a_message(path: Path) -> None:
    for block in re.findall(r"```logql\n(.*?)```", path.read_text(), flags=re.DOTALL):
        for words in re.findall(r'\|[=~] "([^"]+)"', block):
            for word in words.split("|"):
                assert any(word in message for message in logged()), word


def corrected() -> list[str]:
    rows = [
        row.split(" | ") for row in (RUNBOOKS / "README.md").read_text().partition("## Older queries")[2].splitlines()
    ]
    return [row[2].strip(" |`") for row in rows if len(row) == 3 and row[2].startswith("`")]


@pytest.mark.parametrize("query", corrected())
def test_a_corrected_older_query_asks_for_what_is_there(query: str) -> None:
    for selector in found(query):
        assert selector.name in {*DECLARED, *RECORDED}
        # A histogram has no series of its bare name.
        assert not isinstance(DECLARED.get(selector.name or ""), Histogram) or (selector.name or "").endswith("_bucket")


def test_a_runbook_s_commands_are_there() -> None:
    used = {
        tuple(line.split()[1:3])
        for path in RUNBOOKS.glob("*.md")
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), flags=re.DOTALL)
        for line in block.splitlines()
        if line.startswith("meterscope ")
    }
    assert used
    for words in used:
        command = main.get_command(click.Context(main), words[0])
        assert command is not None, words
        if isinstance(command, click.Group):
            assert command.get_command(click.Context(command), words[1]) is not None, words
