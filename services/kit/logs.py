"""JSON lines on standard output: time, level, message, service, trace ids and the event's own fields.

Use the standard library: `logging.getLogger(__name__).info("invoice finalized", extra={"invoice_id": "inv_…"})`.
Secrets are taken out before any output sees a record. What nobody caught (in the interpreter, a thread, a loop of a
worker, an asyncio task, a destructor) is logged with the field `uncaught`.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import orjson
from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode

from services.kit.redaction import redact, redact_value

request_id: ContextVar[str] = ContextVar("request_id", default="")

# `color_message` is uvicorn's: its message again, with escapes for a terminal.
_RESERVED: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_LEVELS: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}
# A collector that is away is complained of once a minute, by each kind of complaint.
_COMPLAINT_SECONDS: Final = 60.0
_EXPORTERS: Final = "opentelemetry."
_NOISY: Final = ("alembic", "grpc", "opentelemetry", "httpx", "httpcore", "dramatiq", "urllib3")
# What does not go on without the one who failed.
_ENDS_SOMETHING: Final = ("interpreter", "thread")
# On an exception: the span in which it was raised; that it was logged as uncaught. On a task: where it was made.
_SPAN: Final = "_meterscope_span"
_TOLD: Final = "_meterscope_told"

_log = logging.getLogger(__name__)


class Outputs(logging.Handler):
    """The root logger's one handler: takes secrets out of a record, once, and gives it to all outputs.

    An exception becomes the fields `exception.type`, `exception.message` and `exception.stacktrace` (OpenTelemetry's
    names), so that every output gets the redacted text and none the original. One that was raised within a span that
    has ended is logged under that span.
    """

    def __init__(self, outputs: Sequence[logging.Handler], unredacted: Sequence[logging.Handler] = ()) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self._unredacted = tuple(unredacted)

    def handle(self, record: logging.LogRecord) -> bool:
        """Give the record to each output. Not under a lock of its own: each output has one."""
        with _span_of(record.exc_info[1] if record.exc_info else None):
            for output in self._unredacted:
                if record.levelno >= output.level:
                    output.handle(record)
            _redact(record)
            for output in self.outputs:
                if record.levelno >= output.level:
                    output.handle(record)
        return True

    def flush(self) -> None:
        """Flush all."""
        for output in (*self._unredacted, *self.outputs):
            output.flush()


class Exporters(logging.Filter):
    """Lets one complaint of a kind a minute through from OpenTelemetry's exporters: they retry without an end."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record passes."""
        if not record.name.startswith(_EXPORTERS):
            return True
        kind = f"{record.name}:{record.lineno}"
        if record.created - self._told.get(kind, float("-inf")) < _COMPLAINT_SECONDS:
            return False
        self._told[kind] = record.created
        return True


def is_not_of_exporters(record: logging.LogRecord) -> bool:
    """Say whether a record may be exported: those of the exporters would each bring about the next."""
    return not record.name.startswith(_EXPORTERS)


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON line."""

    def __init__(self, common: Mapping[str, str]) -> None:
        super().__init__()
        self._common = dict(common)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        span = trace.get_current_span().get_span_context()
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(record.levelname, record.levelname),
            "message": record.getMessage(),
            **self._common,
            "logger": record.name,
        }
        if span.is_valid:
            fields["trace_id"] = trace.format_trace_id(span.trace_id)
            fields["span_id"] = trace.format_span_id(span.span_id)
        own = {name: value for name, value in vars(record).items() if name not in _RESERVED and name not in fields}
        return orjson.dumps({**fields, **own}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class RaisedIn(SpanProcessor):
    """Notes on an exception in which span it was raised: when nobody catches it, that span has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Note it, for the innermost span."""
        if span.status.status_code is StatusCode.ERROR and (error := sys.exc_info()[1]) is not None:
            _note(error, _SPAN, getattr(error, _SPAN, None) or span.get_span_context())


def setup(
    level: str,
    common: Mapping[str, str],
    handlers: Sequence[logging.Handler] = (),
    unredacted: Sequence[logging.Handler] = (),
) -> None:
    """Send all logs to standard output as JSON lines, and to `handlers`; log what nobody caught.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        common: fields of every line, such as service and version.
        handlers: further handlers (OTLP, files); secrets are taken out for them too.
        unredacted: handlers that need the exception itself, and take the secrets out themselves (Sentry).
    """
    stream = logging.StreamHandler(sys.stdout)
    stream.setFormatter(JsonFormatter(common))
    stream.addFilter(Exporters())
    for handler in (*handlers, *unredacted):
        handler.addFilter(is_not_of_exporters)
    root = logging.getLogger()
    root.handlers = [Outputs([stream, *handlers], unredacted)]
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its errors are the broker's to log (`Uncaught`).
    logging.getLogger("dramatiq.worker.WorkerThread").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody caught in an event loop: errors of callbacks, and of tasks whose result nobody asked for."""
    loop.set_exception_handler(_log_uncaught_in_loop)
    loop.set_task_factory(_task)


def uncaught(error: BaseException, where: str, message: str, **fields: Any) -> None:
    """Log an error that nobody caught, once however many nets it falls through.

    Args:
        error: it.
        where: the net: `interpreter`, `thread`, `loop` or `worker` (of a worker), `asyncio`, `destructor`.
        message: what happened.
        fields: further fields of the line.
    """
    if not _note(error, _TOLD, value=True):
        return
    level = logging.CRITICAL if where in _ENDS_SOMETHING else logging.ERROR
    _log.log(level, message, exc_info=error, extra={"uncaught": where, **fields})


def _redact(record: logging.LogRecord) -> None:
    record.msg, record.args = redact(record.getMessage()), None
    if request_id.get():
        record.request_id = request_id.get()
    if not hasattr(record, "customer_id") and (customer := baggage.get_baggage("customer_id")):
        record.customer_id = customer
    for name, value in list(vars(record).items()):
        if name not in _RESERVED:
            vars(record)[name] = redact_value(value, name)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields = {
            "exception.type": type(error).__name__,
            "exception.message": redact(str(error)),
            "exception.stacktrace": redact("".join(traceback.format_exception(error))),
        }
        vars(record).update(fields)
    record.exc_info = record.exc_text = None


@contextmanager
def _span_of(error: BaseException | None) -> Iterator[None]:
    span: SpanContext | None = getattr(error, _SPAN, None)
    if span is None or trace.get_current_span().get_span_context().is_valid:
        yield
        return
    with trace.use_span(NonRecordingSpan(span)):
        yield


def _note(on: object, name: str, value: object) -> bool:
    """Write an attribute on an object that is not ours; say whether it was not there before."""
    if getattr(on, name, None) is not None:
        return False
    try:
        setattr(on, name, value)
    except AttributeError:
        # One with __slots__: it is told under no span, or twice.
        return True
    return True


def _log_uncaught(kind: type[BaseException], error: BaseException, _tb: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        uncaught(error, "interpreter", "uncaught exception")


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "?"
        uncaught(args.exc_value, "thread", "uncaught exception in thread", thread_name=name)


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        message = args.err_msg or "exception ignored"
        uncaught(args.exc_value, "destructor", message, ignored_in=repr(args.object))


def _log_uncaught_in_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is None:
        _log.error(context["message"], extra={"uncaught": "asyncio"})
        return
    # The task has ended, and its context with it.
    if (span := getattr(context.get("future") or context.get("task"), _SPAN, None)) is not None:
        _note(error, _SPAN, span)
    uncaught(error, "asyncio", context["message"])


def _task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **rest: Any
) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **rest)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        _note(task, _SPAN, span)
    return task
