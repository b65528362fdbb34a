"""Durations and spans of SQL statements, read off SQLAlchemy's events."""

import time
from typing import Any, Final

import sqlalchemy as sa
from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from services.kit.metrics import DB_OPERATION

_BEGUN: Final = "statement_begun"


class StatementTelemetry:
    """Records `db.client.operation.duration` for each statement, and a span where one is being recorded around it."""

    def __init__(self, engine: sa.Engine, *, namespace: str) -> None:
        """Watch an engine. `namespace` is `database|schema` (OpenTelemetry's conventions for PostgreSQL)."""
        self._namespace = namespace
        self._tracer = trace.get_tracer("services.kit")
        self._duration = DB_OPERATION.build(metrics.get_meter("services.kit"))
        sa.event.listen(engine, "before_cursor_execute", self._before)
        sa.event.listen(engine, "after_cursor_execute", self._after)
        sa.event.listen(engine, "handle_error", self._failed)

    def _before(self, conn: sa.Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        attributes = {
            "db.system.name": "postgresql",
            "db.namespace": self._namespace,
            "db.operation.name": statement.lstrip()[:32].split(None, 1)[0].upper(),
        }
        span: Span | None = None
        if trace.get_current_span().is_recording():
            span = self._tracer.start_span(
                attributes["db.operation.name"],
                kind=SpanKind.CLIENT,
                attributes={**attributes, "db.query.text": statement},
            )
        conn.info[_BEGUN] = (time.perf_counter(), attributes, span)

    def _after(self, conn: sa.Connection, *_rest: Any) -> None:
        self._end(conn, None)

    def _failed(self, context: sa.engine.ExceptionContext) -> None:
        if context.connection is not None and not context.connection.invalidated:
            self._end(context.connection, context.original_exception)

    def _end(self, conn: sa.Connection, error: BaseException | None) -> None:
        started, attributes, span = conn.info.pop(_BEGUN, (None, {}, None))
        if started is None:
            return
        if error is not None:
            attributes["error.type"] = getattr(error, "sqlstate", None) or type(error).__name__
        self._duration.record(time.perf_counter() - started, attributes)
        if span is not None:
            if error is not None:
                span.set_status(StatusCode.ERROR, type(error).__name__)
            span.end()
