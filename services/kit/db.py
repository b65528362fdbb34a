"""PostgreSQL: engines, short transactions, and what the pool and the statements say about themselves.

SQLAlchemy Core over psycopg 3, READ COMMITTED, no transaction longer than five seconds: a writer that stays open holds
back the horizon below which usage may be rolled up, for every database of the server.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, cast
from weakref import WeakMethod

import psycopg
import sqlalchemy as sa
from opentelemetry import metrics
from opentelemetry.metrics import Observation
from psycopg import errors as pg
from psycopg import sql
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from services.kit.connection import Connection, Connector, patience_for
from services.kit.instruments import Read
from services.kit.metrics import DB_POOL, DB_POOL_UTILIZATION
from services.kit.statements import StatementTelemetry

TRANSACTION_TIMEOUT: Final = timedelta(seconds=5)
_CONNECT_SECONDS: Final = 5
_KEEPALIVE_SECONDS: Final = 5
_AFTER_COMMIT: Final = "after_commit"
_POOL: Final = "pool"
_NO_TIME_LIMIT: Final = sa.text("SET LOCAL transaction_timeout = 0")
_TIME_LIMIT: Final = sa.text("SELECT set_config('transaction_timeout', :limit, true)")

# Not connection errors by class, but the server ended the transaction and nothing of it was kept.
_ENDED_BY_SERVER: Final = (pg.TransactionTimeout, pg.IdleInTransactionSessionTimeout, pg.ReadOnlySqlTransaction)


class Database:
    """The database of one service, seen by one process."""

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        service: str,
        role: str = "server",
        pool_size: int = 10,
        pool_timeout: timedelta = timedelta(seconds=5),
        transaction_timeout: timedelta = TRANSACTION_TIMEOUT,
    ) -> None:
        """Prepare the pool; the first checkout connects.

        Args:
            url: `postgresql://…`.
            schema: where the service's tables are; the search path, so that no statement names it.
            service: such as `usage`, for metrics and `application_name`.
            role: `server` or `worker`, the other half of `application_name`.
            pool_size: connections at most; the next asker waits.
            pool_timeout: how long it waits before it is told that the database is unavailable.
            transaction_timeout: the server ends longer transactions.
        """
        self.url = dialect_url(url)
        self.schema = schema
        self.service = service
        self._options = connect_options(
            schema=schema, application=f"{service}-{role}", transaction_timeout=transaction_timeout
        )
        self._connector = Connector(transaction_timeout)
        self._waiting = 0
        self._disposed = False
        self._lock = threading.Lock()
        self.engine = sa.create_engine(
            self.url,
            isolation_level="READ COMMITTED",
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout.total_seconds(),
            pool_use_lifo=True,
            connect_args=self._options,
            # Errors are logged, traced and stored, and values may be secrets or personal.
            hide_parameters=True,
        )
        sa.event.listen(self.engine, "do_connect", self._open)
        sa.event.listen(self.engine, "checkin", self._checked_in)
        self._pool_size = pool_size
        StatementTelemetry(self.engine, namespace=f"{self.engine.url.database}|{schema}")
        self._declare_metrics(role)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Give a connection with a transaction that commits at the end of the block and rolls back on any error.

        What `after_commit` was given runs then, with the connection back in the pool.

        Raises:
            Exception: the block's own; those for which `is_unavailable` holds when the database cannot be had or was
                lost. Lost during the commit, whether it counted is not known.
        """
        with self._connect() as conn:
            todo: dict[str, Callable[[], None]] = {}
            conn.info[_AFTER_COMMIT] = todo
            try:
                with conn.begin():
                    yield conn
            finally:
                if not conn.invalidated:
                    conn.info.pop(_AFTER_COMMIT, None)
        for act in todo.values():
            act()

    @contextmanager
    def autocommit(self) -> Iterator[sa.Connection]:
        """Give a connection on which every statement is its own transaction."""
        with self._connect() as conn:
            yield conn.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection[Any]]:
        """Give the driver's own connection, for COPY and pipelines. Commits at the end, rolls back on any error.

        No span and no duration is recorded: that is left to the caller, who counts by batch.
        """
        with self._asking():
            pooled = self.engine.raw_connection()
        pool = self.engine.pool
        conn = cast("psycopg.Connection[Any]", pooled.driver_connection)
        try:
            with conn.transaction():
                yield conn
        finally:
            broken = conn.broken or conn.closed
            if broken:
                pooled.invalidate()
            pooled.close()
            if broken and self.engine.pool is pool:
                # The others of this pool were cut with it; SQLAlchemy does the same for its own statements.
                self.engine.dispose()

    def dedicated(self) -> psycopg.Connection[Any]:
        """Open a connection outside the pool, in autocommit: for LISTEN and for what must not wait for the pool."""
        plain = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return self._connector.open(plain, autocommit=True, **self._options)

    def answers(self) -> bool:
        """Say whether the database can be asked now; for health checks."""
        try:
            with self.autocommit() as conn:
                conn.execute(sa.text("SELECT 1"))
        except Exception as error:
            if is_unavailable(error):
                return False
            raise
        return True

    def dispose(self) -> None:
        """Close the pool's connections; those that are in use, when they come back."""
        self._disposed = True
        self.engine.dispose()

    def _open(self, _dialect: object, record: ConnectionPoolEntry, arguments: Any, options: Any) -> Connection:
        record.info[_POOL] = self.engine.pool
        return self._connector.open(*arguments, **options)

    def _checked_in(self, connection: Connection | None, record: ConnectionPoolEntry) -> None:
        if connection is None:
            return
        # A transaction may have been given more time.
        connection.patience = self._connector.patience
        # A pool that was renewed meanwhile keeps what comes back to it, and nobody asks it any more.
        if self._disposed or record.info.get(_POOL) is not self.engine.pool:
            connection.close()

    @contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        with self._asking():
            conn = self.engine.connect()
        with conn:
            yield conn

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _declare_metrics(self, role: str) -> None:
        # A scope of its own for each process role: the SDK keeps only the first callback of a name within a scope.
        meter = metrics.get_meter("services.kit.db", attributes={"service": self.service, "role": role})
        DB_POOL.observe(meter, _weakly(self._pool_counts))
        DB_POOL_UTILIZATION.observe(meter, _weakly(self._pool_utilization))

    def _pool_counts(self) -> Iterable[Observation]:
        pool = cast("QueuePool", self.engine.pool)
        counts = {"idle": pool.checkedin(), "active": pool.checkedout(), "waiting": self._waiting}
        return [Observation(count, {"service": self.service, "status": status}) for status, count in counts.items()]

    def _pool_utilization(self) -> Iterable[Observation]:
        pool = cast("QueuePool", self.engine.pool)
        return [Observation(pool.checkedout() / self._pool_size, {"service": self.service})]


def after_commit(conn: sa.Connection, key: str, act: Callable[[], None]) -> None:
    """Run `act` once the transaction of `Database.transaction` has committed; once a key, never after a rollback.

    On any other connection nothing happens: what is done here must be a hastening only.
    """
    todo = conn.info.get(_AFTER_COMMIT)
    if todo is not None:
        todo[key] = act


def is_unavailable(error: BaseException) -> bool:
    """Say whether an error means that the database was away, gone or overrun, so that the same may succeed later.

    True for no connection, a lost one (also within a commit whose outcome is then unknown), no free connection in the
    pool, a statement or transaction ended by the server, a deadlock.
    """
    if isinstance(error, (PoolTimeout, PendingRollbackError)):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_unavailable(error.orig))
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError, *_ENDED_BY_SERVER))


def dialect_url(url: str) -> sa.URL:
    """Return the URL with our driver named: `postgres://` and `postgresql://` are what users write."""
    return sa.make_url(url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")


def lift_time_limit(conn: sa.Connection, to: timedelta | None = None) -> None:
    """Let this transaction take as long as it does: for what cannot be parted, and where nobody waits behind it.

    Args:
        conn: of `Database.transaction`.
        to: the limit from now on; none when None.
    """
    # A timer that runs is not set anew: it has to be stopped first.
    conn.execute(_NO_TIME_LIMIT)
    if to is not None:
        conn.execute(_TIME_LIMIT, {"limit": f"{to // timedelta(milliseconds=1)}ms"})
    driver = cast("Connection", conn.connection.driver_connection)
    driver.patience = None if to is None else patience_for(to)


def connect_options(*, schema: str, application: str, transaction_timeout: timedelta | None) -> dict[str, Any]:
    """Return the driver's connection options: session settings, and keepalives towards both ends.

    Args:
        schema: the search path.
        application: `application_name`, shown in pg_stat_activity.
        transaction_timeout: None for no limit (migrations).
    """
    limit = int((transaction_timeout or timedelta()).total_seconds() * 1000)
    session = {
        "search_path": sql.Identifier(schema).as_string(),
        "transaction_timeout": limit,
        "idle_in_transaction_session_timeout": int(TRANSACTION_TIMEOUT.total_seconds() * 1000) if limit else 0,
        "tcp_keepalives_idle": _KEEPALIVE_SECONDS,
        "tcp_keepalives_interval": _KEEPALIVE_SECONDS,
        "tcp_keepalives_count": 2,
        "timezone": "UTC",
    }
    return {
        "options": " ".join(f"-c {name}={_escaped(value)}" for name, value in session.items()),
        "application_name": application,
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": _KEEPALIVE_SECONDS,
        "keepalives_interval": _KEEPALIVE_SECONDS,
        "keepalives_count": 2,
    }


def _escaped(value: object) -> str:
    """Escape what would end a value in libpq's `options`."""
    return str(value).replace("\\", "\\\\").replace(" ", "\\ ")


def _weakly(method: Read) -> Read:
    """Let instruments, which live as long as the process, not keep a database alive."""
    reference = WeakMethod(method)

    def read() -> Iterable[Observation]:
        alive = reference()
        return () if alive is None else alive()

    return read
