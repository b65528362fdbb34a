"""Calls: as they are sent, as the events that they are stored as, and as they are shown."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal, TypeVar

import orjson

from meterscope.usage.v1 import call_record_service_pb2 as pb
from meterscope.usage.v1 import event_service_pb2 as events_pb
from services.kit.errors import InvalidArgument
from services.usage.convert import events
from services.usage.convert.fields import instant, text, timestamp
from services.usage.domain.call import (
    DEFAULT_SOURCE,
    EVENT_TYPE,
    Call,
    CallRecord,
    CallType,
    Disposition,
    seconds,
    trunk,
)
from services.usage.domain.call_columns import column_names
from services.usage.domain.call_file import Layout, Options
from services.usage.domain.csv_rows import DELIMITERS, ENCODINGS
from services.usage.domain.event import Event, Rejected
from services.usage.domain.verdict import Outcome, Verdict
from services.usage.domain.window import time_zone
from services.usage.numbering import Numbering
from services.usage.store.calls import Filter, StoredCall
from services.usage.usecases.calls import Report

Number = TypeVar("Number", bound=int)
Value = TypeVar("Value")

_CALL_TYPES: Final = {pb.CallType.Value(f"CALL_TYPE_{each.name}"): each for each in CallType}
_DISPOSITIONS: Final = {pb.Disposition.Value(f"DISPOSITION_{each.name}"): each for each in Disposition}
_CALL_TYPE_NUMBERS: Final = {each.value: number for number, each in _CALL_TYPES.items()}
_DISPOSITION_NUMBERS: Final = {each.value: number for number, each in _DISPOSITIONS.items()}
_PREFIX_LENGTH: Final = 16
# What our events call otherwise.
_FIELDS: Final = {
    "time": "start_time",
    "quantities.duration_seconds": "duration_seconds",
    "quantities.billable_seconds": "billable_seconds",
    "attributes.trunk": "trunk",
}


def numbering(message: pb.Numbering) -> Numbering:
    """Decode how numbers are read.

    Raises:
        InvalidArgument: names the field.
    """
    try:
        return Numbering(message.default_region, tuple(message.own_prefixes), message.extension_digits)
    except InvalidArgument as error:
        violation = error.violations[0]
        raise InvalidArgument.at(f"numbering.{violation.field}", violation.description, reason=error.reason) from None


def records(messages: Sequence[pb.CallRecord], numbers: Numbering) -> Iterator[CallRecord | Rejected]:
    """Decode calls; yields why in the place of one that is none."""
    for message in messages:
        try:
            yield _record(message, numbers)
        except Rejected as error:
            yield error


def admitted(calls: Sequence[Call], trace_id: bytes, now_us: int) -> tuple[list[Event], list[tuple[int, Verdict]]]:
    """Make events of calls; see `convert.events.admitted`. Verdicts name a call's fields."""
    taken, refused = events.admitted(map(_event, calls), trace_id, now_us)
    named = [(place, verdict._replace(field=_FIELDS.get(verdict.field, verdict.field))) for place, verdict in refused]
    return taken, named


def ingest_response(messages: Sequence[pb.CallRecord], verdicts: Sequence[Verdict]) -> pb.IngestCallRecordsResponse:
    """Encode what became of the calls of a request."""
    sent = [events_pb.Event(id=message.id) for message in messages]
    judged = events.answered(sent, verdicts, events_pb.IngestEventsResponse())
    return pb.IngestCallRecordsResponse(
        results=judged.results,
        accepted=judged.accepted,
        duplicate=judged.duplicate,
        conflict=judged.conflict,
        quarantined=judged.quarantined,
        rejected=judged.rejected,
    )


def file_numbering(request: pb.ImportCallRecordsRequest) -> Numbering:
    """Decode how a file's numbers are read.

    Raises:
        InvalidArgument: names the field.
    """
    return Numbering(request.default_region, tuple(request.own_prefixes), request.extension_digits)


def encoding(request: pb.ImportCallRecordsRequest) -> str:
    """Decode a file's encoding.

    Raises:
        InvalidArgument: not one of those that are read.
    """
    name = request.encoding.lower() or "utf-8"
    if name not in ENCODINGS:
        raise InvalidArgument.at(
            "encoding", f"{request.encoding[:32]!r} is none of {', '.join(ENCODINGS)}", reason="UNKNOWN_ENCODING"
        )
    return name


def delimiter(request: pb.ImportCallRecordsRequest) -> str:
    """Decode a file's delimiter, empty if it is to be told.

    Raises:
        InvalidArgument: not one of those that are read.
    """
    if request.delimiter and request.delimiter not in DELIMITERS:
        raise InvalidArgument.at(
            "delimiter", f"{request.delimiter[:8]!r} is no comma, semicolon, tab or bar", reason="BAD_DELIMITER"
        )
    return request.delimiter


def options(request: pb.ImportCallRecordsRequest) -> Options:
    """Decode how a file is to be read.

    Raises:
        InvalidArgument: names the field.
    """
    if request.customer_id and request.customer_key:
        raise InvalidArgument.at(
            "customer_key", "customer_id is set as well; send at most one of them", reason="TWO_CUSTOMERS"
        )
    layouts = {each.value: each for each in Layout}
    if request.layout and request.layout not in layouts:
        raise InvalidArgument.at("layout", f"{request.layout} is no layout", reason="UNKNOWN_LAYOUT")
    return Options(
        zone=time_zone(text(request.time_zone, "time_zone", optional=True) or "UTC", "time_zone"),
        customer_id=text(request.customer_id, "customer_id", optional=True),
        customer_key=text(request.customer_key, "customer_key", optional=True),
        source=text(request.source, "source", optional=True) or DEFAULT_SOURCE,
        layout=layouts.get(request.layout),
        time_format=text(request.time_format, "time_format", optional=True),
        columns=column_names(request.columns),
    )


def report(found: Report) -> pb.ImportCallRecordsResponse:
    """Encode what became of a file."""
    most_first = sorted(found.destinations.items(), key=lambda item: (-item[1][0], item[0]))
    response = pb.ImportCallRecordsResponse(
        rows=found.rows,
        accepted=found.outcomes[Outcome.ACCEPTED],
        duplicate=found.outcomes[Outcome.DUPLICATE],
        conflict=found.outcomes[Outcome.CONFLICT],
        quarantined=found.outcomes[Outcome.QUARANTINED],
        rejected=found.outcomes[Outcome.REJECTED],
        layout=pb.CallRecordLayout.ValueType(found.layout.value),
        delimiter=found.delimiter,
        time_format=found.time_format,
    )
    for problem in found.problems:
        response.problems.add(
            line=problem.line,
            column=problem.column,
            outcome=events_pb.Outcome.ValueType(problem.verdict.outcome),
            reason=problem.verdict.reason,
            message=problem.verdict.message,
        )
    for country, (calls, total) in most_first:
        response.destinations.add(country=country, calls=calls).billable_seconds.value = f"{total:f}"
    return response


def chosen(request: pb.ListCallRecordsRequest) -> Filter:
    """Decode which calls are meant.

    Raises:
        InvalidArgument: names the field.
    """
    try:
        call_type = _named(request.call_type, _CALL_TYPES, "call_type")
    except Rejected as error:
        raise InvalidArgument.at(error.field, error.message, reason=error.reason) from None
    prefix = text(request.callee_prefix, "callee_prefix", optional=True)
    if len(prefix) > _PREFIX_LENGTH:
        raise InvalidArgument.at("callee_prefix", f"has {len(prefix)} characters; at most {_PREFIX_LENGTH} are allowed")
    return Filter(
        start=instant(request.start_time, "start_time") if request.HasField("start_time") else None,
        end=instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        call_type=call_type.value if call_type else "",
        country=text(request.country, "country", optional=True),
        callee_prefix=prefix,
    )


def shown(stored: StoredCall, customer_id: str) -> pb.CallRecord:
    """Encode a stored call."""
    attributes = orjson.loads(stored.attributes)
    message = pb.CallRecord(
        id=stored.id,
        source=stored.source,
        customer_id=customer_id,
        caller=attributes.get("caller", ""),
        callee=attributes.get("callee", ""),
        call_type=_CALL_TYPE_NUMBERS.get(attributes.get("call_type"), pb.CALL_TYPE_UNSPECIFIED),
        start_time=timestamp(stored.time),
        disposition=_DISPOSITION_NUMBERS.get(attributes.get("disposition"), pb.DISPOSITION_UNSPECIFIED),
        trunk=attributes.get("trunk", ""),
        trace_id=stored.trace_id,
        country=attributes.get("country", ""),
        destination_prefix=attributes.get("destination_prefix", ""),
        number_type=attributes.get("number_type", ""),
    )
    message.duration_seconds.value = stored.quantities.get("duration_seconds", "0")
    message.billable_seconds.value = stored.quantities.get("billable_seconds", "0")
    return message


def _record(message: pb.CallRecord, numbers: Numbering) -> CallRecord:
    has_start = message.HasField("start_time")
    return CallRecord(
        id=message.id,
        source=message.source or DEFAULT_SOURCE,
        customer_id=message.customer_id,
        customer_key=message.customer_key,
        caller=numbers.caller(message.caller),
        callee=numbers.callee(message.callee),
        call_type=_named(message.call_type, _CALL_TYPES, "call_type"),
        start=(message.start_time.seconds, message.start_time.nanos) if has_start else None,
        duration=_seconds(message, "duration_seconds"),
        billable=_seconds(message, "billable_seconds"),
        disposition=_named(message.disposition, _DISPOSITIONS, "disposition"),
        trunk=trunk(message.trunk),
        trace_id=message.trace_id,
    )


def _event(call: Call) -> events_pb.Event:
    record = call.record
    message = events_pb.Event(
        id=record.id,
        source=record.source,
        type=EVENT_TYPE,
        customer_id=record.customer_id,
        customer_key=record.customer_key,
        attributes=call.attributes(),
        trace_id=record.trace_id,
    )
    if record.start is not None:
        message.time.seconds, message.time.nanos = record.start
        message.time.SetInParent()
    for name, number in call.quantities().items():
        message.quantities[name].value = number
    return message


def _named(number: Number, known: Mapping[Number, Value], field: str) -> Value | None:
    if number and number not in known:
        raise Rejected("UNKNOWN_VALUE", field, f"{number} is not one of the values of {field}")
    return known.get(number)


def _seconds(message: pb.CallRecord, field: Literal["duration_seconds", "billable_seconds"]) -> Decimal | None:
    return seconds(getattr(message, field).value, field) if message.HasField(field) else None
