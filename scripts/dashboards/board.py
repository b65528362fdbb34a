"""The frame of every dashboard: variables, links to the others, rows filled from left to right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from scripts.dashboards.panel import METRICS, Panel, height_of

TAG: Final = "meterscope"
# Where all processes' log lines are, by process and trace.
_LOG_LINES: Final = "/d/meterscope-api"
_WIDTH: Final = 24


@dataclass(frozen=True)
class Row:
    """Panels beside each other, of the same width, under a title."""

    title: str
    panels: Sequence[Sequence[Panel]]


def board(
    uid: str,
    title: str,
    shows: str,
    rows: Sequence[Row],
    *,
    variables: Sequence[Any] = (),
    since: str = "now-6h",
) -> model.Dashboard:
    """Return a dashboard.

    Args:
        uid: its id, part of its address.
        title: its title.
        shows: what it is for.
        rows: what is on it; each sequence of panels within a row fills the width.
        variables: beside those that all have.
        since: the range that it shows at first.
    """
    made = dashboard.Dashboard(f"Meterscope · {title}").uid(uid).description(shows).tags([TAG]).readonly()
    made = made.refresh("30s").time(since, "now").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    others = dashboard.DashboardLink("Meterscope").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    made = made.link(others.as_dropdown(True).include_vars(True).keep_time(True))
    lines = dashboard.DashboardLink("Log lines").type(model.DashboardLinkType.LINK).url(_LOG_LINES).icon("doc")
    made = made.link(lines.include_vars(True).keep_time(True))
    made = made.annotation(_alerts()).variables([environment(), *variables, _runbooks()])
    number = 0
    for row in rows:
        number += 1
        made = made.with_row(dashboard.Row(row.title).id(number))
        for panels in row.panels:
            for panel in panels:
                number += 1
                made = made.with_panel(_placed(panel, number, _WIDTH // len(panels)))
    return made.build()


def environment() -> Any:
    """Return the variable of environments, such as `production`."""
    return choice("environment", "Environment", "process_uptime_seconds", "deployment_environment_name")


def service() -> Any:
    """Return the variable of processes: such as `usage-worker`."""
    return choice("service", "Process", "process_uptime_seconds", "service_name")


def choice(name: str, label: str, metric: str, values_of: str, *, several: bool = True) -> Any:
    """Return a variable whose values are those of a metric's label; with `several`, all of them at first."""
    variable = dashboard.QueryVariable(name).label(label).datasource(METRICS)
    variable = variable.query(f"label_values({metric}, {values_of})").sort(model.VariableSort.ALPHABETICAL_ASC)
    variable = variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
    if not several:
        return variable
    everything = model.VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


def trace() -> Any:
    """Return the field for a trace id, empty at first: log lines of all traces and of none."""
    text = dashboard.TextBoxVariable("trace_id").label("Trace id (regular expression)").default_value(".*")
    return text.current(model.VariableOption(selected=True, text=".*", value=".*"))


def _runbooks() -> Any:
    """Return the field for the address that goes before a runbook's path, as RUNBOOKS_URL does in alerts."""
    text = dashboard.TextBoxVariable("runbooks_url").label("Runbooks at").default_value("")
    return text.current(model.VariableOption(selected=True, text="", value=""))


def _alerts() -> Any:
    """Return the marks of the moments at which alerts began to fire."""
    marks = dashboard.AnnotationQuery().name("Alerts").datasource(METRICS).enable(True).icon_color("red")
    return marks.expr('ALERTS{alertstate="firing"}')


def _placed(panel: Panel, number: int, width: int) -> Panel:
    return panel.id(number).span(width).height(height_of(panel.build().type_val))
