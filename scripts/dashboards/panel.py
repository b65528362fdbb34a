"""Kinds of panels. Each says what it shows and what is normal; a colour changes where an alert's threshold is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    gauge,
    logs,
    loki,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model

METRICS: Final = model.DataSourceRef(type_val="prometheus", uid="prometheus")
LOGS: Final = model.DataSourceRef(type_val="loki", uid="loki")

# Grafana's ids of units.
PER_SECOND: Final = "cps"
REQUESTS_PER_SECOND: Final = "reqps"
COUNT: Final = "short"
SECONDS: Final = "s"
MILLISECONDS: Final = "ms"
BYTES: Final = "bytes"
SHARE: Final = "percentunit"
PERCENT: Final = "percent"

_HEIGHTS: Final = {"stat": 4, "gauge": 7, "logs": 10}
_HEIGHT: Final = 8
_LINES: Final = 200

# A panel of any kind, not yet placed.
Panel = Any


@dataclass(frozen=True)
class Query:
    """A PromQL query. In the legend `{{label}}` stands for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Bound:
    """From this value on, a colour."""

    value: float
    colour: str


def warn_at(value: float) -> tuple[Bound, ...]:
    """Return one bound."""
    return (Bound(value, "orange"),)


def warn_and_fail_at(warning: float, failure: float) -> tuple[Bound, ...]:
    """Return two bounds, the higher the worse."""
    return (Bound(warning, "orange"), Bound(failure, "red"))


def fail_at(value: float) -> tuple[Bound, ...]:
    """Return one bound that should never be reached."""
    return (Bound(value, "red"),)


def good_from(warning: float, good: float) -> tuple[Bound, ...]:
    """Return bounds of what is the better the higher it is: below `warning` it is red."""
    return (Bound(warning, "orange"), Bound(good, "green"))


def lines(
    title: str,
    *queries: Query,
    unit: str,
    shows: str,
    normal: str,
    bounds: Sequence[Bound] = (),
    stacked: bool = False,
    exemplars: bool = False,
    days: int = 0,
    worst: str = "",
    alerts: Sequence[str] = (),
) -> Panel:
    """Return a graph over time.

    Args:
        title: the panel's.
        queries: what is drawn.
        unit: Grafana's id of it.
        shows: what is drawn, in words.
        normal: what is seen when all is well.
        bounds: where the colour changes.
        stacked: as bars that stand on each other.
        exemplars: with dots that lead to a trace.
        days: a bar for each of so many last days, whatever range the dashboard shows.
        worst: the colour below all bounds, if not green.
        alerts: those that watch the same: the panel leads to their runbooks.
    """
    panel = timeseries.Panel().tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    panel = panel.show_points(common_model.VisibilityMode.NEVER).fill_opacity(8).min(0)
    if stacked or days:
        panel = panel.draw_style(common_model.GraphDrawStyle.BARS).fill_opacity(80)
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if days:
        panel = panel.time_from(f"{days}d").interval("1d")
    if bounds:
        dashed = common_model.GraphThresholdsStyleMode.DASHED
        panel = panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    legend = common.VizLegendOptions().show_legend(True).placement(common_model.LegendPlacement.BOTTOM)
    panel = panel.legend(legend.display_mode(common_model.LegendDisplayMode.TABLE).calcs(["lastNotNull", "max"]))
    return _asking(
        panel, title, queries, unit, shows, normal, bounds, alerts, base=worst or "green", exemplars=exemplars
    )


def number(
    title: str,
    query: Query,
    *,
    unit: str,
    shows: str,
    normal: str,
    bounds: Sequence[Bound] = (),
    worst: str = "",
    alerts: Sequence[str] = (),
) -> Panel:
    """Return one number for each series, with its course behind it. `worst` is the colour below all bounds, if not green."""
    panel = stat.Panel().graph_mode(common_model.BigValueGraphMode.AREA).reduce_options(_last())
    panel = panel.text_mode(common_model.BigValueTextMode.AUTO)
    return _asking(panel, title, (query,), unit, shows, normal, bounds, alerts, base=worst or "green")


def dial(
    title: str,
    query: Query,
    *,
    unit: str,
    shows: str,
    normal: str,
    bounds: Sequence[Bound],
    most: float,
    alerts: Sequence[str] = (),
) -> Panel:
    """Return a dial from 0 to `most` for each series."""
    panel = gauge.Panel().min(0).max(most).show_threshold_markers(True).reduce_options(_last())
    return _asking(panel, title, (query,), unit, shows, normal, bounds, alerts)


def bars(
    title: str,
    query: Query,
    *,
    unit: str,
    shows: str,
    normal: str,
    bounds: Sequence[Bound] = (),
    worst: str = "",
    alerts: Sequence[str] = (),
    customers: bool = False,
) -> Panel:
    """Return a bar for each series, as it is now.

    Args:
        title: the panel's.
        query: what is drawn.
        unit: Grafana's id of it.
        shows: what is drawn, in words.
        normal: what is seen when all is well.
        bounds: where the colour changes.
        worst: the colour below all bounds, if not green.
        alerts: those that watch the same: the panel leads to their runbooks.
        customers: each bar is a customer, and leads to the dashboard of it.
    """
    panel = bargauge.Panel().orientation(common_model.VizOrientation.HORIZONTAL).min(0).reduce_options(_last())
    panel = panel.display_mode(common_model.BarGaugeDisplayMode.BASIC)
    if customers:
        panel = panel.data_links([_customer()])
    return _asking(panel, title, (query,), unit, shows, normal, bounds, alerts, base=worst or "green", instant=True)


def log_lines(title: str, expression: str, *, shows: str, normal: str) -> Panel:
    """Return the log lines that a LogQL expression finds, the newest first. Each leads to its trace."""
    panel = logs.Panel().show_time(True).wrap_log_message(True).enable_log_details(True)
    panel = panel.sort_order(common_model.LogsSortOrder.DESCENDING)
    query = loki.Dataquery().expr(expression).ref_id("A").query_type("range").max_lines(_LINES).legend_format("")
    # A unit says nothing of a line, but whoever adds a query to the panel finds one.
    return _framed(panel.unit("string"), title, shows, normal, LOGS).with_target(query.datasource(LOGS))


def _asking(
    panel: Any,
    title: str,
    queries: Sequence[Query],
    unit: str,
    shows: str,
    normal: str,
    bounds: Sequence[Bound],
    alerts: Sequence[str],
    *,
    base: str = "green",
    instant: bool = False,
    exemplars: bool = False,
) -> Panel:
    steps = [model.Threshold(value=None, color=base)]
    steps += [model.Threshold(value=bound.value, color=bound.colour) for bound in bounds]
    thresholds = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    panel = _framed(panel, title, shows, normal, METRICS).unit(unit).thresholds(thresholds)
    panel = panel.links([_runbook(alert) for alert in alerts])
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend).ref_id(letter)
        target = target.instant() if instant else target.range()
        panel = panel.with_target(target.exemplar(exemplars).datasource(METRICS))
    return panel


def _framed(panel: Any, title: str, shows: str, normal: str, source: model.DataSourceRef) -> Any:
    return panel.title(title).description(f"{shows}\n\nNormal: {normal}").datasource(source)


def _customer() -> Any:
    link = dashboard.DashboardLink("Usage of this customer").type(model.DashboardLinkType.LINK)
    return link.url(
        "/d/meterscope-usage-customer?var-customer_id=${__field.labels.customer_id}&${environment:queryparam}&${__url_time_range}"
    )


def _runbook(alert: str) -> Any:
    link = dashboard.DashboardLink(f"docs/runbooks/{alert}.md").type(model.DashboardLinkType.LINK)
    return link.url(f"${{runbooks_url}}docs/runbooks/{alert}.md").target_blank(True)


def _last() -> Any:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def height_of(kind: str) -> int:
    """Return how many rows of the grid a panel of this type takes."""
    return _HEIGHTS.get(kind, _HEIGHT)
