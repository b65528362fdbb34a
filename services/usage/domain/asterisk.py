"""Asterisk's cdr-csv: rows of columns that it always writes in one order, without a header."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from services.usage.domain.event import MAX_TEXT_BYTES, Rejected

_UNIQUE_ID: Final = re.compile(r"(?:[\w.-]+-)?\d{9,}\.\d+", re.ASCII)
_CHANNEL_SUFFIX: Final = re.compile(r"-[0-9a-fA-F]{4,}(?:;\d)?$")

COLUMNS: Final = (
    "accountcode",
    "src",
    "dst",
    "dcontext",
    "clid",
    "channel",
    "dstchannel",
    "lastapp",
    "lastdata",
    "start",
    "answer",
    "end",
    "duration",
    "billsec",
    "disposition",
    "amaflags",
)
# Behind them uniqueid and userfield, as they are switched on, and in newer versions these.
_NEW: Final = ("peeraccount", "linkedid", "sequence")
_MOST: Final = len(COLUMNS) + 2 + len(_NEW)

# Asterisk's names of our fields.
NAMES: Final = {
    "customer": "accountcode",
    "caller": "src",
    "callee": "dst",
    "start_time": "start",
    "answer_time": "answer",
    "end_time": "end",
    "duration": "duration",
    "billable": "billsec",
    "disposition": "disposition",
    "id": "uniqueid",
}


def is_row(cells: Sequence[str]) -> bool:
    """Say whether it looks like a row of Asterisk's."""
    if not len(COLUMNS) <= len(cells) <= _MOST:
        return False
    duration, billable = cells[12].strip(), cells[13].strip()
    return duration.isdecimal() and billable.isdecimal() and cells[9][:4].isdecimal()


def fields(cells: Sequence[str]) -> Mapping[str, str]:
    """Return the cells of Asterisk's cdr-csv by field: 16 columns, then uniqueid and userfield as they are switched on.

    Legs of one channel share its uniqueid. With it the id holds the sequence, where the newer columns are there, or
    the other channel's name, so that no leg is taken for another version of the first.

    Raises:
        Rejected: too few columns, or too many.
    """
    if not len(COLUMNS) <= len(cells) <= _MOST:
        raise Rejected("COLUMN_COUNT", "", f"has {len(cells)} columns; Asterisk writes {len(COLUMNS)} to {_MOST}")
    cell = dict(zip(COLUMNS, (each.strip() for each in cells), strict=False))
    rest = [each.strip() for each in cells[len(COLUMNS) :]]
    leg = cell["dstchannel"]
    if len(rest) >= len(_NEW):
        leg = rest.pop()
        rest = rest[:-2]
    unique = rest[0] if rest and _UNIQUE_ID.fullmatch(rest[0]) else ""
    if unique and leg:
        unique = f"{unique}/{leg}"
    if len(unique.encode()) > MAX_TEXT_BYTES:
        unique = ""
    is_from_outside = cell["dcontext"].startswith(("from-trunk", "from-pstn", "from-did"))
    carrier = cell["channel"] if is_from_outside else cell["dstchannel"]
    return {
        **{field: cell.get(name, "") for field, name in NAMES.items()},
        "id": unique,
        "call_type": "inbound" if is_from_outside else "",
        "trunk": _CHANNEL_SUFFIX.sub("", carrier),
    }
