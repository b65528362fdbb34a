"""Files of call records: the record that a row is.

Two layouts: a header that names the columns (call_columns.py), and Asterisk's cdr-csv, which has none (asterisk.py).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import chain, islice
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from services.kit.errors import InvalidArgument
from services.usage.domain import asterisk, call_time, call_words
from services.usage.domain.call import DEFAULT_SOURCE, CallRecord, Disposition, Number, seconds, trunk
from services.usage.domain.call_columns import SYNONYMS, places
from services.usage.domain.call_time import ISO, Times
from services.usage.domain.csv_rows import Row
from services.usage.domain.event import Rejected
from services.usage.domain.instant import MICROSECONDS
from services.usage.domain.row_ids import RowIds

_SAMPLE_ROWS: Final = 200
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


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
        self._ids = RowIds()
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
            self._places = places(self.columns, options.columns or {})
        else:
            if options.columns:
                raise InvalidArgument.at(
                    "columns", "Asterisk's columns are known; leave them out", reason="GIVEN_TWICE"
                )
            self.columns, self._places = list(asterisk.COLUMNS), {}
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
            return asterisk.NAMES.get(field, field)
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
        disposition = call_words.disposition(cells["disposition"])
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
            call_type=call_words.call_type(cells["call_type"]),
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
            return asterisk.fields(cells)
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


def _layout(first: Row | None) -> Layout:
    return Layout.ASTERISK if first is not None and asterisk.is_row(first.cells) else Layout.HEADER


def _clean(text: str) -> str:
    """Return a text that may be shown: what was no text in the file is a question mark."""
    return text.encode("utf-8", "replace").decode()


def _seconds(text: str, field: str) -> Decimal | None:
    return seconds(text, field) if text else None


def _between(start: int, end: int, field: str) -> Decimal:
    if end < start:
        raise Rejected("BAD_TIME", field, "is before the time at which the call began or was answered")
    return seconds(str(Decimal(end - start) / MICROSECONDS), field)
