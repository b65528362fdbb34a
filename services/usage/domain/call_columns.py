"""The columns of a file of calls: what they may be called, and which one is what."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from services.kit.errors import InvalidArgument

_WORD: Final = re.compile(r"[^a-z0-9]+")
_LONG_NUMBER: Final = re.compile(r"(\d{4})\d{2,}")

# What a column may be called, the likelier words first.
SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "id": ("id", "call_id", "callid", "uniqueid", "unique_id", "record_id", "cdr_id", "call_uuid", "uuid"),
    "customer": (
        *("customer_id", "customer_key", "customer", "account_id", "account", "accountcode", "account_code"),
        *("account_number", "tenant_id", "tenant", "subscriber"),
    ),
    "caller": (
        *("caller", "caller_number", "calling_number", "calling_party", "calling", "from", "from_number", "src"),
        *("source", "source_number", "a_number", "anumber", "ani", "caller_id", "callerid", "originator", "origin"),
    ),
    "callee": (
        *("callee", "callee_number", "called_number", "called_party", "called", "to", "to_number", "dst"),
        *("destination", "destination_number", "dest", "b_number", "bnumber", "dialled_number", "dialed_number"),
        *("dialled", "dialed", "dnis"),
    ),
    "call_type": ("call_type", "calltype", "direction", "type"),
    "start_time": (
        *("start_time", "starttime", "start", "start_stamp", "started_at", "call_start", "calldate", "call_date"),
        *("timestamp", "datetime", "date_time", "setup_time", "begin", "time", "date"),
    ),
    "answer_time": ("answer_time", "answer", "answered_at", "answer_stamp", "connect_time"),
    "end_time": ("end_time", "endtime", "end", "end_stamp", "ended_at", "hangup_time", "disconnect_time", "stop_time"),
    "duration": ("duration", "duration_seconds", "call_duration", "total_seconds", "length", "seconds"),
    "billable": (
        *("billable_seconds", "billsec", "bill_sec", "billable", "billed_seconds", "billing_seconds"),
        *("billable_duration", "charged_seconds", "talk_time"),
    ),
    "disposition": ("disposition", "call_status", "status", "result", "hangup_cause", "release_cause", "cause"),
    "trunk": ("trunk", "trunk_name", "carrier", "gateway", "route"),
}
_REQUIRED: Final = ("callee", "start_time")


def word(text: str) -> str:
    """Return a word as the tables here have it: in lower case, with underscores for all that is no letter or digit."""
    return _WORD.sub("_", text.lower()).strip("_")


def column_names(given: Sequence[str]) -> Mapping[str, str]:
    """Return header names by field, of `field=name` each.

    Raises:
        InvalidArgument: no such field, or one given twice.
    """
    found: dict[str, str] = {}
    for index, text in enumerate(given):
        field, _, name = text.partition("=")
        if field not in SYNONYMS or not name.strip() or field in found:
            raise InvalidArgument.at(
                f"columns[{index}]",
                f"{text[:64]!r} is not field=name with each field once; fields are {', '.join(SYNONYMS)}",
                reason="BAD_COLUMN",
            )
        found[field] = name.strip()
    return found


def places(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, int]:
    """Return the places of the fields in a header.

    Raises:
        InvalidArgument: a column that was named is not there, or one that is needed is not to be told.
    """
    found: dict[str, int] = {}
    for field, name in given.items():
        if name not in columns:
            raise InvalidArgument.at(
                "columns", f"the header has no column {name[:64]!r}; it has {_shown(columns)}", reason="NO_SUCH_COLUMN"
            )
        found[field] = columns.index(name)
    # Of two columns with the same word the first counts.
    words = {word(name): place for place, name in reversed(list(enumerate(columns)))}
    for field, synonyms in SYNONYMS.items():
        taken = set(found.values())
        place = next((words[each] for each in synonyms if each in words and words[each] not in taken), None)
        if field not in found and place is not None:
            found[field] = place
    missing = [field for field in _REQUIRED if field not in found]
    if missing and columns:
        raise InvalidArgument.at(
            "columns",
            f"the first row names no {' and no '.join(missing)}: {_shown(columns)}; name them as {missing[0]}=…",
            reason="NO_SUCH_COLUMN",
        )
    return found or dict.fromkeys(_REQUIRED, 0)


def _shown(columns: Sequence[str]) -> str:
    """Return columns for an error, which may be logged: of a file without a header they are numbers, cut to prefixes."""
    return ", ".join(repr(_LONG_NUMBER.sub(r"\1…", name[:32])) for name in columns[:20])
