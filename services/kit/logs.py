"""JSON lines on standard output: time, level, message, service, trace ids and the event's own fields.

Use the standard library: `logging.getLogger(__name__).info("invoice finalized", extra={"invoice_id": "inv_…"})`.
Secrets are taken out before any handler sees a record.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import orjson
from opentelemetry import baggage, trace

from services.kit.redaction import is_secret_name, redact

request_id: ContextVar[str] = ContextVar("request_id", default="")

_RESERVED: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}
# A collector that is away is complained of once a minute, by each kind of complaint.
_COMPLAINT_SECONDS: Final = 60.0
_EXPORTERS: Final = "opentelemetry."
_NOISY: Final = ("alembic", "grpc", "opentelemetry", "httpx", "httpcore", "dramatiq", "urllib3")

_log = logging.getLogger(__name__)


class Redaction(logging.Filter):
    """Takes secrets out of a record in place: message, extra fields, exception.

    An exception becomes the fields `exception.type`, `exception.message` and `exception.stacktrace` (OpenTelemetry's
    names), so that every handler gets the redacted text and none the original.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact and let pass."""
        record.msg, record.args = redact(record.getMessage()), None
        for name, value in vars(record).items():
            if name not in _RESERVED:
                vars(record)[name] = _redact_value(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields = {
                "exception.type": type(error).__name__,
                "exception.message": redact(str(error)),
                "exception.stacktrace": redact("".join(traceback.format_exception(error))),
            }
            vars(record).update(fields)
        record.exc_info = record.exc_text = None
        return True


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
        if request_id.get():
            fields["request_id"] = request_id.get()
        if customer := baggage.get_baggage("customer_id"):
            fields["customer_id"] = customer
        fields.update({name: value for name, value in vars(record).items() if name not in _RESERVED})
        return orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def setup(level: str, common: Mapping[str, str], handlers: tuple[logging.Handler, ...] = ()) -> None:
    """Send all logs to standard output as JSON lines, and to `handlers`; log what nobody caught.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        common: fields of every line, such as service and version.
        handlers: further handlers (OTLP); secrets are taken out for them too.
    """
    stream = logging.StreamHandler(sys.stdout)
    stream.setFormatter(JsonFormatter(common))
    stream.addFilter(Exporters())
    root = logging.getLogger()
    root.handlers = [stream, *handlers]
    for handler in handlers:
        handler.addFilter(is_not_of_exporters)
    for handler in root.handlers:
        handler.addFilter(Redaction())
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def _redact_value(name: str, value: Any) -> Any:
    if is_secret_name(name):
        return "[redacted]"
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: _redact_value(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(name, part) for part in value]
    return value


def _log_uncaught(kind: type[BaseException], error: BaseException, tb: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        _log.critical("uncaught exception", exc_info=(kind, error, tb))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "?"
        _log.critical("uncaught exception in thread", exc_info=args.exc_value, extra={"thread_name": name})
