"""The committed dashboards: made by the code, asking only for what is declared, in forms that are right."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards.catalogue import FOLDER, render
from scripts.foreign_series import FOREIGN_SERIES, RESOURCE_LABELS
from scripts.instruments import series as declared_series
from services.kit.instruments import Counter, Declaration, Gauge, Histogram
from tests.dashboards.promql_reading import Asked, selectors, variables

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "otel-collector/grafana/provisioning"
FILES = sorted(FOLDER.glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}
DECLARED: dict[str, Declaration] = declared_series()
RULES = [
    rule
    for path in sorted((ROOT / "otel-collector/prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"] for rule in RULES if "alert" in rule}
# Grafana's own.
BUILT_IN = {"__rate_interval", "__range", "__interval"}


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard."""

    dashboard: str
    content: dict[str, Any]

    @property
    def queries(self) -> list[str]:
        return [target["expr"] for target in self.content["targets"]]

    @property
    def metrics(self) -> bool:
        return bool(self.content["datasource"]["type"] == "prometheus")

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.content['title']}"


def panels() -> Iterator[Panel]:
    for uid, content in DASHBOARDS.items():
        for panel in content["panels"]:
            if panel["type"] != "row":
                yield Panel(uid, panel)


PANELS = list(panels())
ASKING = [panel for panel in PANELS if panel.metrics]


def test_the_files_are_what_the_code_makes() -> None:
    made = render()
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, (
            f"{path.relative_to(ROOT)} is not up to date; run: make dashboards"
        )
    assert set(FILES) == {path for path in made if path.suffix == ".json"}, "run: make dashboards"


def test_the_dashboards_that_are_promised_are_there() -> None:
    names = ("overview", "redis", "usage-customer", "api", "jobs", "system", "performance", "slo", "cdr")
    assert set(DASHBOARDS) == {f"meterscope-{name}" for name in names}


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_a_dashboard_is_found_under_its_file_s_name(uid: str) -> None:
    content = DASHBOARDS[uid]
    assert content["uid"] == uid
    assert content["title"].startswith("Meterscope · ")
    assert content["description"]
    others, lines = content["links"]
    assert (others["type"], others["tags"]) == ("dashboards", content["tags"])
    assert (lines["type"], lines["url"]) == ("link", "/d/meterscope-api")
    # With the same environment, process and trace, over the same time.
    assert all(link["includeVars"] and link["keepTime"] for link in content["links"])


def test_the_log_lines_that_every_dashboard_leads_to_are_there() -> None:
    lines = [panel for panel in PANELS if panel.dashboard == "meterscope-api" and panel.content["type"] == "logs"]
    assert lines
    for panel in lines:
        (query,) = panel.queries
        assert {"environment", "service", "trace_id"} <= set(variables(query))


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_grafana_s_own_types_read_a_dashboard_and_lose_nothing(uid: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(DASHBOARDS[uid])
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == DASHBOARDS[uid]


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_fill_the_grid_without_covering_each_other(uid: str) -> None:
    content = DASHBOARDS[uid]
    ids = [panel["id"] for panel in content["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    # 24 columns, the same number of cells in each line that is begun.
    assert {x for x, _ in taken} == set(range(24))


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_says_what_it_shows_and_what_is_normal(panel: Panel) -> None:
    content = panel.content
    assert content["title"]
    shows, normal = content["description"].split("\n\nNormal: ")
    assert shows.endswith(".")
    assert normal.endswith(".")
    assert content["fieldConfig"]["defaults"]["unit"]
    assert content["targets"]
    for target in content["targets"]:
        assert target["datasource"] == content["datasource"]
    letters = [target["refId"] for target in content["targets"]]
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize("panel", ASKING, ids=str)
def test_legends_tell_series_apart(panel: Panel) -> None:
    legends = [target["legendFormat"] for target in panel.content["targets"]]
    assert len(set(legends)) == len(legends)
    for target in panel.content["targets"]:
        placeholders = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        kept = {label for asked in selectors(target["expr"]) for label in asked.kept} - {"le"}
        assert target["legendFormat"]
        assert placeholders <= kept
        # A label that is left out of the legend would make two lines look the same; a plan's name stands for its id.
        assert kept - placeholders <= {"plan_id"}


@pytest.mark.parametrize("panel", ASKING, ids=str)
def test_queries_ask_for_declared_series_and_labels(panel: Panel) -> None:
    for query in panel.queries:
        for asked in selectors(query):
            assert set(asked.labels) | set(asked.grouped) <= labels_of(asked.name), asked


def labels_of(name: str) -> set[str]:
    """Every label that a series has; fails for one that nobody declares."""
    if name in DECLARED:
        declaration = DECLARED[name]
        bucket = {"le"} if isinstance(declaration, Histogram) and name.endswith("_bucket") else set()
        return {*declaration.prometheus_labels, *RESOURCE_LABELS, *bucket}
    if name in FOREIGN_SERIES:
        return {*FOREIGN_SERIES[name], *RESOURCE_LABELS}
    assert name in RECORDED, f"{name} is declared by no metrics.py, no rule and not in scripts/foreign_series.py"
    # Burn rates are worked out from recorded series and have their label without naming it.
    return {
        "slo",
        "deployment_environment_name",
        *(label for rule in RULES if rule.get("record") == name for label in rule.get("labels", {})),
    }


@pytest.mark.parametrize("panel", ASKING, ids=str)
def test_queries_read_each_kind_of_instrument_in_its_form(panel: Panel) -> None:
    for query in panel.queries:
        for asked in selectors(query):
            assert is_well_formed(asked), f"{asked} in {query}"


def is_well_formed(asked: Asked) -> bool:
    """Whether a counter is summed over its rate, a gauge taken from the process that tells most or least, …"""
    declaration = DECLARED.get(asked.name)
    innermost = asked.within[-2:]
    if (
        isinstance(declaration, Gauge)
        or asked.name in RECORDED
        or asked.name.startswith(("otelcol_process_", "otelcol_exporter_queue"))
        or asked.name.endswith("_traces_on_memory")
    ):
        return innermost[-1:] in (("max",), ("min",))
    if isinstance(declaration, Counter | Histogram) or asked.name in FOREIGN_SERIES:
        summed = innermost in (("sum", "rate"), ("sum", "increase"))
        return summed and (not asked.name.endswith("_bucket") or is_quantile(asked))
    return False


def is_quantile(asked: Asked) -> bool:
    return asked.within[-3:] == ("histogram_quantile", "sum", "rate") and "le" in asked.grouped


def test_what_does_not_reach_the_sink_is_shown_as_no_loss() -> None:
    lost = re.compile(r"otelcol_exporter_(?:send|enqueue)_failed_metric_points_total(.{30})")
    found = [text for panel in ASKING for query in panel.queries for text in lost.findall(query)]
    assert found
    assert all(text.startswith('{exporter!="otlp_grpc/sink"}') for text in found)


@pytest.mark.parametrize(
    "query",
    [
        "billing_http_requests_total",
        "sum(billing_http_requests_total)",
        "rate(billing_http_requests_total[5m])",
        "sum(billing_usage_percentage)",
        "billing_jobs_dead",
        "histogram_quantile(0.95, billing_http_request_duration_seconds_bucket)",
        "histogram_quantile(0.95, sum by (route) (rate(billing_http_request_duration_seconds_bucket[5m])))",
    ],
)
def test_the_forms_that_older_dashboards_had_are_known_as_wrong(query: str) -> None:
    assert not all(is_well_formed(asked) for asked in selectors(query))


@pytest.mark.parametrize("panel", ASKING, ids=str)
def test_zero_stands_only_for_what_has_not_happened_yet(panel: Panel) -> None:
    for query in panel.queries:
        for left in re.findall(r"(\w+\([^()]*(?:\([^()]*\)[^()]*)*\)) or vector\(0\)", query):
            # A gauge that is missing is not 0: nobody has told it.
            assert all(not isinstance(DECLARED.get(asked.name), Gauge) for asked in selectors(left))
            assert all(not asked.grouped for asked in selectors(left))


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_variables_are_defined_and_used_and_their_values_exist(uid: str) -> None:
    content = DASHBOARDS[uid]
    defined = {variable["name"]: variable for variable in content["templating"]["list"]}
    for variable in defined.values():
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"])
            assert asked is not None
            assert asked[2] in labels_of(asked[1])
    used = {
        name
        for panel in PANELS
        if panel.dashboard == uid
        for text in (*panel.queries, panel.content["title"], *(link["url"] for link in panel.content.get("links", ())))
        for name in variables(text)
    }
    assert used - BUILT_IN - {"runbooks_url"} == set(defined) - {"runbooks_url"}


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_links_lead_to_runbooks_that_are_there(panel: Panel) -> None:
    for link in panel.content.get("links", ()):
        alert = re.fullmatch(r"\$\{runbooks_url\}docs/runbooks/(\w+)\.md", link["url"])
        assert alert is not None
        assert alert[1] in ALERTS
        assert (ROOT / f"docs/runbooks/{alert[1]}.md").exists()


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: str(rule["alert"]))
def test_alerts_lead_to_dashboards_that_are_there(rule: dict[str, Any]) -> None:
    found = re.search(r"/d/([\w-]+)(?:\?var-(\w+)=)?", rule["annotations"]["dashboard_url"])
    assert found is not None
    assert found[1] in DASHBOARDS
    runbook = f"docs/runbooks/{rule['alert']}.md"
    assert any(
        link["title"] == runbook
        for panel in PANELS
        if panel.dashboard == found[1]
        for link in panel.content.get("links", ())
    ), f"no panel of {found[1]} leads to {runbook}"
    if found[2]:
        assert found[2] in {variable["name"] for variable in DASHBOARDS[found[1]]["templating"]["list"]}


def test_exemplars_are_asked_for_where_durations_are_and_lead_to_jaeger() -> None:
    shown = [target for panel in ASKING for target in panel.content["targets"] if target["exemplar"]]
    assert shown
    assert all(target["expr"].startswith("histogram_quantile(") for target in shown)
    (prometheus,) = [source for source in data_sources() if source["type"] == "prometheus"]
    assert {"name": "trace_id", "datasourceUid": "jaeger"} in prometheus["jsonData"]["exemplarTraceIdDestinations"]


def test_panels_ask_data_sources_that_are_provisioned() -> None:
    provisioned = {(source["type"], source["uid"]) for source in data_sources()}
    asked = {(panel.content["datasource"]["type"], panel.content["datasource"]["uid"]) for panel in PANELS}
    assert asked <= provisioned


def data_sources() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((PROVISIONING / "datasources/meterscope.yaml").read_text())[
        "datasources"
    ]
    return found


def test_grafana_finds_the_folder_that_is_mounted() -> None:
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards/meterscope.yaml").read_text())["providers"]
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounts[f"./{FOLDER.relative_to(ROOT)}"] == provider["options"]["path"]
    assert mounts[f"./{PROVISIONING.relative_to(ROOT)}"] == "/etc/grafana/provisioning"
