"""A report as a table for spreadsheets."""

import csv
import io
import re
from collections.abc import Mapping
from typing import Final

from google.api import httpbody_pb2

from meterscope.usage.v1 import report_service_pb2 as pb

_COLUMNS: Final = ("date", "meter", "group", "value", "unit", "cost", "currency")
# Where a spreadsheet would take what follows for a formula: at the beginning of a text, and behind what some part cells at,
# quoted or not.
_FORMULA: Final = re.compile(r'(^|[;\t\r\n])(?="*[=+\-@\t\r\n])')


def as_csv(message: pb.UsageReport) -> httpbody_pb2.HttpBody:
    """Write a report as CSV: by day, one row a meter, one for each of its groups, and one for what the day cost in all.

    Texts that a spreadsheet would take for formulas get an apostrophe in front: a group's names and values each, and
    within them what is behind a semicolon, a tab or an end of line, as some split cells there. Numbers stay as they are.
    """
    rows: list[tuple[str, ...]] = []
    for meter in message.meters:
        name, unit = _text(meter.meter), _text(meter.unit)
        for each in meter.days:
            cost = each.precise_cost.value
            rows.append((each.date, name, "", each.value.value, unit, cost, message.cost.currency if cost else ""))
            rows += [(each.date, name, _group(part.group), part.value.value, unit, "", "") for part in each.groups]
    rows += [(day.date, "", "", "", "", day.precise_amount.value, message.cost.currency) for day in message.cost.days]
    # Stable: within a day the meters stay in their order, and the whole cost comes last.
    rows.sort(key=lambda row: (row[0], not row[1]))
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([_COLUMNS, *rows])
    return httpbody_pb2.HttpBody(content_type="text/csv; charset=utf-8", data=out.getvalue().encode())


def _group(group: Mapping[str, str]) -> str:
    return ";".join(f"{_text(name)}={_text(value)}" for name, value in sorted(group.items()))


def _text(value: str) -> str:
    return _FORMULA.sub(r"\1'", value)
