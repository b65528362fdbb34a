"""Files of call records: which column is what, and the record that a row is.

Two layouts: a header that names the columns (in any of many words), and Asterisk's cdr-csv, which has none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from itertools import chain, islice
from typing import Final, Protocol, TypeVar
from zoneinfo import ZoneInfo

from services.kit.errors import InvalidArgument
from services.usage.domain import call_time
from services.usage.domain.call import DEFAULT_SOURCE, CallRecord, CallType, Disposition, Number, seconds, trunk
from services.usage.domain.call_time import ISO, Times
from services.usage.domain.csv_rows import Row
from services.usage.domain.event import MAX_TEXT_BYTES, Rejected
from services.usage.domain.instant import MICROSECONDS

T = TypeVar("T")

_SAMPLE_ROWS: Final = 200
# Rows without an id are told apart from identical ones among so many before them (up to twice as many).
_REMEMBERED: Final = 100_000
_WORD: Final = re.compile(r"[^a-z0-9]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONG_NUMBER: Final = re.compile(r"(\d{4})\d{2,}")
_UNIQUE_ID: Final = re.compile(r"(?:[\w.-]+-)?\d{9,}\.\d+", re.ASCII)
_CHANNEL_SUFFIX: Final = re.compile(r"-[0-9a-fA-F]{4,}(?:;\d)?$")

ASTERISK: Final = (
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
_ASTERISK_NEW: Final = ("peeraccount", "linkedid", "sequence")
_LAST_OLD: Final = 18

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

CALL_TYPES: Final = {
    **dict.fromkeys(("inbound", "in", "incoming"), CallType.INBOUND),
    **dict.fromkeys(("outbound", "out", "outgoing"), CallType.OUTBOUND),
    **dict.fromkeys(("internal", "on_net", "extension"), CallType.INTERNAL),
    **dict.fromkeys(("toll_free", "tollfree", "freephone", "free"), CallType.TOLL_FREE),
}
DISPOSITIONS: Final = {
    **dict.fromkeys(
        ("answered", "answer", "completed", "ok", "success", "normal_clearing", "normal", "connected", "16", "200"),
        Disposition.ANSWERED,
    ),
    **dict.fromkeys(
        ("no_answer", "noanswer", "missed", "unanswered", "no_user_response", "timeout", "18", "19", "480"),
        Disposition.NO_ANSWER,
    ),
    **dict.fromkeys(("busy", "user_busy", "rejected", "declined", "call_rejected", "17", "486"), Disposition.BUSY),
    **dict.fromkeys(
        ("failed", "failure", "error", "chanunavail", "invalid", "unallocated_number", "1", "404"), Disposition.FAILED
    ),
    **dict.fromkeys(("congestion", "34", "42", "503"), Disposition.CONGESTION),
    **dict.fromkeys(("cancelled", "canceled", "cancel", "originator_cancel", "487"), Disposition.CANCELLED),
}


class Numbers(Protocol):
    """Reads telephone numbers."""

    def callee(self, text: str) -> Number:
        """Return the number that was called; Rejected if it is none."""

    def caller(self, text: str) -> Number | None:
        """Return the number that called, None if it was withheld; Rejected if it is neither."""


class Layout(Enum):
    """How columns are laid out; the values are the contract's numbers."""

    HEADER = 1
    ASTERISK = 2


@dataclass(frozen=True)
class Options:
    """How a file is to be read; what is empty or None is told from its beginning."""

    zone: ZoneInfo
    customer_id: str = ""
    customer_key: str = ""
    source: str = DEFAULT_SOURCE
    layout: Layout | None = None
    time_format: str = ""
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A row: the line that it begins on, and its record or why it is none. Its `fault.field` names the column."""

    line: int
    record: CallRecord | None = None
    fault: Rejected | None = None


class CallFile:
    """A file of calls, read once."""

    def __init__(self, rows: Iterator[Row], options: Options, numbers: Numbers) -> None:
        """Read its beginning.

        Raises:
            InvalidArgument: what was not given cannot be told; names the option.
        """
        self._options = options
        self._numbers = numbers
        self._ids = _Ids()
        faulty: list[Row] = []
        first = next(rows, None)
        while first is not None and first.fault:
            faulty.append(first)
            if len(faulty) > _SAMPLE_ROWS:
                raise InvalidArgument(f"the first {_SAMPLE_ROWS} rows are no CSV; send a CSV file", reason="NOT_CSV")
            first = next(rows, None)
        self.layout = options.layout or _layout(first)
        if self.layout is Layout.HEADER:
            self.columns = [] if first is None else [_clean(cell.strip()) for cell in first.cells]
            self._places = _places(self.columns, options.columns or {})
        else:
            if options.columns:
                raise InvalidArgument.at(
                    "columns", "Asterisk's columns are known; leave them out", reason="GIVEN_TWICE"
                )
            self.columns, self._places = list(ASTERISK), {}
            rows = rows if first is None else chain([first], rows)
        sample = list(islice(rows, _SAMPLE_ROWS))
        self._rows = chain(faulty, sample, rows)
        self.times = self._times(sample)

    def __iter__(self) -> Iterator[Read]:
        """Yield the rows."""
        for row in self._rows:
            try:
                record = self._record(row)
            except Rejected as error:
                error.field = self.column(error.field)
                yield Read(row.line, fault=error)
            else:
                yield Read(row.line, record)

    def column(self, field: str) -> str:
        """Return the name that the file has for a field; the field's own if it has none."""
        if self.layout is Layout.ASTERISK:
            return _ASTERISK_NAMES.get(field, field)
        return self.columns[self._places[field]] if field in self._places else field

    def _times(self, sample: Sequence[Row]) -> Times:
        if self._options.time_format:
            return Times(self._options.time_format, self._options.zone)
        if self.layout is Layout.ASTERISK:
            return Times(ISO, self._options.zone)
        place = self._places["start_time"]
        found = [row.cells[place].strip() for row in sample if len(row.cells) > place and row.cells[place].strip()]
        return call_time.told(found, self._options.zone)

    def _record(self, row: Row) -> CallRecord:
        if row.fault:
            raise Rejected("BAD_ROW", "", row.fault)
        for place, cell in enumerate(row.cells):
            if _SURROGATE.search(cell) or "\0" in cell:
                name = self.columns[place] if place < len(self.columns) else ""
                raise Rejected("BAD_ENCODING", name, f"{_clean(cell[:64])!r} holds bytes that are no text")
        cells = self._named(row.cells)
        customer_id, customer_key = self._customer(cells["customer"])
        start = self._time(cells["start_time"], "start_time")
        if start is None:
            raise Rejected("MISSING", "start_time", "is empty; a call has a time at which it began")
        answer, end = self._time(cells["answer_time"], "answer_time"), self._time(cells["end_time"], "end_time")
        disposition = _word(cells["disposition"], DISPOSITIONS, "disposition", "BAD_DISPOSITION")
        duration = _seconds(cells["duration"], "duration")
        if duration is None and end is not None:
            duration = _between(start, end, "end_time")
        billable = _seconds(cells["billable"], "billable")
        if billable is None and answer is not None and end is not None and disposition in {None, Disposition.ANSWERED}:
            billable = _between(answer, end, "end_time")
        return CallRecord(
            id=cells["id"] or self._ids.of(row.cells),
            source=self._options.source,
            customer_id=customer_id,
            customer_key=customer_key,
            caller=self._numbers.caller(cells["caller"]),
            callee=self._numbers.callee(cells["callee"]),
            call_type=_word(cells["call_type"], CALL_TYPES, "call_type", "BAD_CALL_TYPE"),
            start=_split(start),
            duration=duration,
            billable=billable,
            disposition=disposition,
            trunk=trunk(cells["trunk"]),
            is_answered=answer is not None if self._has_answer_time else None,
        )

    @property
    def _has_answer_time(self) -> bool:
        return self.layout is Layout.ASTERISK or "answer_time" in self._places

    def _named(self, cells: Sequence[str]) -> Mapping[str, str]:
        """Return the cells by field."""
        if self.layout is Layout.ASTERISK:
            return _asterisk(cells)
        # Some programs end each row with a delimiter.
        extra = [cell for cell in cells[len(self.columns) :] if cell.strip()]
        if len(cells) < len(self.columns) or extra:
            raise Rejected("COLUMN_COUNT", "", f"has {len(cells)} columns; the header has {len(self.columns)}")
        found = dict.fromkeys(SYNONYMS, "")
        for field, place in self._places.items():
            found[field] = cells[place].strip()
        return found

    def _customer(self, cell: str) -> tuple[str, str]:
        if self._options.customer_id or self._options.customer_key:
            return self._options.customer_id, self._options.customer_key
        if not cell:
            raise Rejected("NO_CUSTOMER", "customer", "names no customer; name one for the whole file, or in each row")
        return (cell, "") if cell.startswith("cus_") else ("", cell)

    def _time(self, cell: str, field: str) -> int | None:
        if not cell:
            return None
        try:
            return self.times.read(cell)
        except ValueError as error:
            raise Rejected("BAD_TIME", field, str(error)) from None


def _split(time: int) -> tuple[int, int]:
    """Return microseconds as seconds and nanoseconds."""
    whole, rest = divmod(time, MICROSECONDS)
    return whole, rest * 1000


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


class _Ids:
    """Makes ids of rows that have none: from the content, and the row's number among identical ones.

    Calls may repeat exactly, so the content alone would drop some. Files are in order of time, and identical rows have
    the same time: only the last rows are remembered, so that memory stays flat.
    """

    def __init__(self) -> None:
        self._now: dict[bytes, int] = {}
        self._before: dict[bytes, int] = {}

    def of(self, cells: Sequence[str]) -> str:
        digest = blake2b("\x1f".join(cells).encode(), digest_size=16).digest()
        count = self._now.get(digest) or self._before.get(digest, 0)
        if len(self._now) >= _REMEMBERED:
            self._now, self._before = {}, self._now
        self._now[digest] = count + 1
        return f"row-{digest.hex()}-{count + 1}"


def _layout(first: Row | None) -> Layout:
    if first is None:
        return Layout.HEADER
    if len(ASTERISK) <= len(first.cells) <= _LAST_OLD + len(_ASTERISK_NEW) and _looks_like_asterisk(first.cells):
        return Layout.ASTERISK
    return Layout.HEADER


def _looks_like_asterisk(cells: Sequence[str]) -> bool:
    duration, billable = cells[12].strip(), cells[13].strip()
    return duration.isdecimal() and billable.isdecimal() and cells[9][:4].isdecimal()


def _places(columns: Sequence[str], given: Mapping[str, str]) -> dict[str, int]:
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
    words = {_WORD.sub("_", name.lower()).strip("_"): place for place, name in reversed(list(enumerate(columns)))}
    for field, synonyms in SYNONYMS.items():
        taken = set(found.values())
        place = next((words[word] for word in synonyms if word in words and words[word] not in taken), None)
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


def _clean(text: str) -> str:
    """Return a text that may be shown: what was no text in the file is a question mark."""
    return text.encode("utf-8", "replace").decode()


# Asterisk's names of our fields.
_ASTERISK_NAMES: Final = {
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


def _asterisk(cells: Sequence[str]) -> Mapping[str, str]:
    """Return the cells of Asterisk's cdr-csv by field: 16 columns, then uniqueid and userfield as they are switched on.

    Legs of one channel share its uniqueid. With it the id holds the sequence, where the newer columns are there, or
    the other channel's name, so that no leg is taken for another version of the first.
    """
    most = _LAST_OLD + len(_ASTERISK_NEW)
    if not len(ASTERISK) <= len(cells) <= most:
        raise Rejected("COLUMN_COUNT", "", f"has {len(cells)} columns; Asterisk writes {len(ASTERISK)} to {most}")
    cell = dict(zip(ASTERISK, (each.strip() for each in cells), strict=False))
    rest = [each.strip() for each in cells[len(ASTERISK) :]]
    leg = cell["dstchannel"]
    if len(rest) >= len(_ASTERISK_NEW):
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
        **{field: cell.get(name, "") for field, name in _ASTERISK_NAMES.items()},
        "id": unique,
        "call_type": "inbound" if is_from_outside else "",
        "trunk": _CHANNEL_SUFFIX.sub("", carrier),
    }


def _word(text: str, known: Mapping[str, T], field: str, reason: str) -> T | None:
    if not text:
        return None
    found = known.get(_WORD.sub("_", text.lower()).strip("_"))
    if found is None:
        raise Rejected(reason, field, f"{text[:64]!r} is none of {', '.join(known)}")
    return found


def _seconds(text: str, field: str) -> Decimal | None:
    return seconds(text, field) if text else None


def _between(start: int, end: int, field: str) -> Decimal:
    if end < start:
        raise Rejected("BAD_TIME", field, "is before the time at which the call began or was answered")
    return seconds(str(Decimal(end - start) / MICROSECONDS), field)
