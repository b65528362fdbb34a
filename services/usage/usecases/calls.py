"""Taking calls in, one by one or as files, and showing them."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Final

from opentelemetry import trace

from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.slots import Slots
from services.kit.telemetry import current_ids
from services.usage.domain import csv_rows
from services.usage.domain.call import Call, CallRecord, completed
from services.usage.domain.call_file import CallFile, Layout, Numbers, Options, Read
from services.usage.domain.csv_rows import Rows
from services.usage.domain.event import Event, Rejected
from services.usage.domain.instant import to_us
from services.usage.domain.verdict import ACCEPTED, OUTCOME_NAMES, Outcome, Verdict, rejected
from services.usage.metrics import CallMetrics, IngestMetrics
from services.usage.store import calls as store
from services.usage.store.calls import Filter, StoredCall
from services.usage.usecases import event_pages
from services.usage.usecases.ingest import Ingest

MAX_RECORDS: Final = 10_000
MOST_PROBLEMS: Final = 1_000
# Rows that go into one transaction: enough to make its cost small, few enough to keep memory flat.
_BATCH: Final = 2_000
# Each occupies a thread for as long as its file takes.
_MOST_IMPORTS: Final = 4
_UNKNOWN: Final = "unknown"
_FAILED: Final = {Outcome.REJECTED, Outcome.CONFLICT}

_log = logging.getLogger(__name__)
_tracer = trace.get_tracer("services.usage")

# Makes events of calls: returns those that may be stored, and the places and verdicts of those that never will.
Admit = Callable[[Sequence[Call], bytes, int], tuple[list[Event], list[tuple[int, Verdict]]]]


@dataclass(frozen=True)
class Problem:
    """A row that did not go in: the line that it begins on, the column at fault and the verdict."""

    line: int
    column: str
    verdict: Verdict


@dataclass
class Report:
    """What became of a file.

    Attributes:
        outcomes: rows by outcome; they add up to `rows`.
        problems: the first 1,000 rows that did not go in.
        destinations: accepted calls and their billable seconds by country.
    """

    layout: Layout
    delimiter: str
    time_format: str
    rows: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    destinations: dict[str, tuple[int, Decimal]] = field(default_factory=dict)


class Calls:
    """Takes calls in by the path of all events, and shows them."""

    def __init__(
        self,
        database: Database,
        ingest: Ingest,
        admit: Admit,
        metrics: CallMetrics,
        ingested: IngestMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._ingest = ingest
        self._admit = admit
        self._metrics = metrics
        self._ingested = ingested
        self._clock = clock
        # Each holds its slot from before its first byte.
        self.imports = Slots(
            _MOST_IMPORTS,
            "files are being read already; send this one when one of them is done",
            reason="TOO_MANY_IMPORTS",
        )

    def take(self, records: Sequence[CallRecord | Rejected]) -> list[Verdict]:
        """Store calls durably and return what became of each; what is rejected already stays so.

        Args:
            records: as they were sent, or why they are none.

        Raises:
            psycopg.OperationalError: the database is away, or the commit's outcome is not known. Nothing is
                acknowledged; all of it may be sent again.
        """
        verdicts, _ = self._judged(records)
        _show_counts(Counter(verdict.outcome for verdict in verdicts))
        return verdicts

    def read(
        self, chunks: Iterable[bytes], *, encoding: str, delimiter: str, options: Options, numbers: Numbers
    ) -> Report:
        """Store the calls of a CSV file, some thousands at a time as they come.

        Args:
            chunks: the file, cut anywhere.
            encoding: one of `csv_rows.ENCODINGS`.
            delimiter: one of `csv_rows.DELIMITERS`; empty to be told.
            options: how it is to be read.
            numbers: how its numbers are read.

        Raises:
            InvalidArgument: what was not given cannot be told from the file's beginning.
            psycopg.OperationalError: the database is away. The rows before are stored; the file may be sent again.
        """
        started = time.perf_counter()
        with _tracer.start_as_current_span("read call records", record_exception=False, set_status_on_exception=False):
            rows = Rows(csv_rows.lines(chunks, encoding), delimiter)
            file = CallFile(iter(rows), options, numbers)
            report = Report(file.layout, rows.delimiter, file.times.form)
            try:
                self._read(iter(file), file, report)
            finally:
                _show_counts(report.outcomes)
        # Numbers are personal: only what became of them is logged.
        _log.info(
            "call records imported",
            extra={
                "rows": report.rows,
                **{name: report.outcomes[outcome] for outcome, name in OUTCOME_NAMES.items()},
                "reasons": dict(Counter(problem.verdict.reason for problem in report.problems)),
                "seconds": round(time.perf_counter() - started, 3),
            },
        )
        return report

    def page(self, customer_id: str, chosen: Filter, page_size: int, page_token: str) -> tuple[list[StoredCall], str]:
        """Return a page of a customer's calls and the token of the next; see `event_pages.page`."""
        return event_pages.page(self._database, store.page, customer_id, chosen, page_size, page_token)

    def _read(self, rows: Iterator[Read], file: CallFile, report: Report) -> None:
        while batch := list(islice(rows, _BATCH)):
            records = [row.fault if row.record is None else row.record for row in batch]
            verdicts, calls = self._judged([record for record in records if record is not None])
            report.rows += len(batch)
            report.outcomes.update(verdict.outcome for verdict in verdicts)
            for row, verdict, call in zip(batch, verdicts, calls, strict=True):
                if verdict is ACCEPTED and call is not None:
                    count, seconds = report.destinations.get(call.record.callee.country, (0, Decimal(0)))
                    report.destinations[call.record.callee.country] = (count + 1, seconds + call.billable)
                elif verdict.outcome in _FAILED and len(report.problems) < MOST_PROBLEMS:
                    # A fault of the row names its column already.
                    column = verdict.field if row.record is None else file.column(verdict.field)
                    report.problems.append(Problem(row.line, column, verdict))

    def _judged(self, records: Sequence[CallRecord | Rejected]) -> tuple[list[Verdict], list[Call | None]]:
        """Return for each record what became of it, and the call if it is one."""
        started = time.perf_counter()
        calls: list[Call | None] = [None if isinstance(record, Rejected) else completed(record) for record in records]
        verdicts: dict[int, Verdict] = {
            place: rejected(record) for place, record in enumerate(records) if isinstance(record, Rejected)
        }
        places = [place for place, call in enumerate(calls) if call is not None]
        good = [call for call in calls if call is not None]
        try:
            verdicts.update(zip(places, self._stored(good), strict=True))
        except Exception:
            self._metrics.took(time.perf_counter() - started, stored=False)
            raise
        ordered = [verdicts[place] for place in range(len(records))]
        took = time.perf_counter() - started
        self._metrics.took(took, stored=True)
        self._metrics.processed(Counter(map(_label, ordered, calls)))
        self._ingested.took(list(Counter(verdict.outcome for verdict in ordered).items()), took)
        return ordered, calls

    def _stored(self, calls: Sequence[Call]) -> list[Verdict]:
        span = trace.get_current_span().get_span_context()
        span_id = span.span_id.to_bytes(8, "big") if span.is_valid else b""
        trace_id, _ = current_ids()
        events, refused = self._admit(calls, trace_id, to_us(self._clock()))
        verdicts = list(self._ingest.take(events, span_id)) if events else []
        for place, verdict in refused:
            verdicts.insert(place, verdict)
        return verdicts


def check_size(count: int) -> None:
    """Check how many calls are sent at once.

    Raises:
        InvalidArgument: none, or more than 10,000.
    """
    if not 0 < count <= MAX_RECORDS:
        raise InvalidArgument.at(
            "call_records", f"{count} calls; send 1 to {MAX_RECORDS:,} in a call", reason="BATCH_SIZE"
        )


def _label(verdict: Verdict, call: Call | None) -> tuple[str, str, str]:
    status = "failed" if verdict.outcome in _FAILED else "success"
    if call is None:
        return status, _UNKNOWN, _UNKNOWN
    return status, call.call_type.value, call.record.callee.country or "internal"


def _show_counts(outcomes: Counter[Outcome]) -> None:
    """Put the counts on the span."""
    trace.get_current_span().set_attributes(
        {f"meterscope.calls.{name}": outcomes[outcome] for outcome, name in OUTCOME_NAMES.items()}
    )
