"""docs/dashboards.md: what is on each dashboard, and the queries for those who use them without Grafana."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from grafana_foundation_sdk.models.dashboard import Dashboard, RowPanel

_HEAD: Final = """\
# Dashboards

Grafana shows these; `docker compose up` starts it with them at `http://127.0.0.1:3000`. They are made by code
(`scripts/dashboards/`, with Grafana's own builders): `make dashboards` writes `otel-collector/grafana/dashboards/*.json`
and this page. The files can be imported into any Grafana whose data sources have the ids `prometheus`, `loki` and `jaeger`
(`otel-collector/grafana/provisioning/datasources/`).

- Every panel says what it shows and what is normal: the mark at its upper left corner. Lines change colour where an alert's
  threshold is; the panel's links lead to the runbooks of the alerts that watch the same.
- **From a graph to a trace**: the dots in graphs of durations are exemplars: one request whose trace is kept. It opens in
  Jaeger, and from a span there to its log lines in Loki. A log line leads to its trace as well.
- **From one dashboard to another**: the menu *Meterscope* at the top keeps the range and the chosen variables.
- **From a graph to log lines**: the link *Log lines* at the top, with the same range, environment, process and trace.
- `environment` chooses `deployment.environment.name` of the processes; panels about the collector show all of them.
- Red marks over all graphs are the moments at which an alert fires.

Without Grafana the queries below work at Prometheus' and Loki's own APIs: write `5m` for `$__rate_interval`, `1h` for
`$__range`, `.*` for `$environment`, `$service` and `$trace_id`, a customer's id for `$customer_id`, a meter's name for
`$metric_type`.

Queries hold to these rules, and `tests/dashboards/` to both: counters are read by `rate` and `increase`, state gauges by `max by`
(a gauge that changed hands is told by two processes for some minutes), quantiles from the sum of the buckets `by (le)`, ratios
with both sides summed; `or vector(0)` stands only where a missing series means that nothing of the kind has happened yet.
A series begins with a 0 where OTLP says that it began, so that `rate` and `increase` see what is counted first: Prometheus runs
with `--enable-feature=created-timestamp-zero-ingestion`. One without it shows nothing of a customer's first use.
"""


def render(dashboards: Sequence[Dashboard]) -> str:
    """Return the page."""
    parts = [_HEAD, "| Dashboard | |", "|---|---|"]
    parts += [f"| [{_short(each)}](#{_anchor(each)}) | {each.description} |" for each in dashboards]
    for each in dashboards:
        parts += ["", f"## {_short(each)}", "", f"`/d/{each.uid}`. {each.description}", ""]
        parts += ["| Panel | Shows | Unit | Query |", "|---|---|---|---|"]
        parts += list(_lines(each))
    return "\n".join(parts) + "\n"


def _lines(dashboard: Dashboard) -> Iterator[str]:
    for panel in dashboard.panels or ():
        if isinstance(panel, RowPanel):
            yield f"| **{panel.title}** | | | |"
            continue
        queries = "<br>".join(_code(target) for target in panel.targets or ())
        shows = (panel.description or "").split("\n\n")[0]
        unit = panel.field_config.defaults.unit if panel.field_config else ""
        yield f"| {panel.title} | {shows} | {unit} | {queries} |"


def _code(target: Any) -> str:
    # A bar ends a cell, in code as well.
    return (
        f"`{target.expr.replace('|', chr(92) + '|')}`"
        if "`" not in target.expr
        else f"`` {target.expr.replace('|', chr(92) + '|')} ``"
    )


def _short(dashboard: Dashboard) -> str:
    return str(dashboard.title).removeprefix("Meterscope · ")


def _anchor(dashboard: Dashboard) -> str:
    return _short(dashboard).lower().replace(" ", "-")
