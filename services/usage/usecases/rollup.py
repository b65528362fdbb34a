"""The rollup: adds what ended transactions wrote to the totals, each event exactly once.

A turn is one transaction (store/rollup.py has the protocol). Turns follow each other while there is a backlog;
otherwise a notice from ingest or 250 ms start the next one. One process does it, by lease; were two to do it at once,
the lock on the rollup's place would let them take turns.
"""

import logging
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import psycopg
import sqlalchemy as sa
from opentelemetry.trace import Link, get_current_span, get_tracer

from services.kit import telemetry
from services.kit.db import Database, is_unavailable
from services.kit.leases import Lease
from services.kit.notices import Listener
from services.usage.metrics import DATA, INTERNAL, UNAVAILABLE, RollupMetrics, RollupState
from services.usage.store import corrected, generation, holders, places, recount, rollup, waiting
from services.usage.store.rollup import Moved, Taken, Turn
from services.usage.usecases.notifier import channel, hurry_channel
from services.usage.usecases.publish import Publisher
from services.usage.usecases.signals import Signals

_EVENTS_A_TURN: Final = 200_000
_EVENTS_AT_FIRST: Final = 50_000
_FEWEST_EVENTS_A_TURN: Final = 1_000
# A transaction has 5 s, whatever the machine is busy with beside it. With many customers a turn costs less an event the more
# it takes in: their periods and counters move once a turn. Small turns would stay behind for ever, each long enough.
_LONG_TURN_SECONDS: Final = 2.0
_SHORT_TURN_SECONDS: Final = 0.9
# The next turn's transactions may hold so many times the events of this one's.
_DENSER: Final = 2
_TICK_SECONDS: Final = 0.25
# Without any work the place still moves: readers wait for it.
_IDLE_SECONDS: Final = 1.0
_LEASE: Final = timedelta(seconds=4)
_WITHOUT_LEASE_SECONDS: Final = 0.5
_HOLD_LIMIT: Final = timedelta(seconds=7)
# Under full load a turn pays for each total that it moves, however many events moved it: after a long one it rests, so
# that the next takes in more at once. Whoever waits for it breaks the rest off.
_REST_PER_TURN: Final = 5.0
_LONGEST_REST: Final = 0.6
_WATCH_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


class Rollup:
    """One turn at a time."""

    def __init__(
        self,
        database: Database,
        signals: Signals,
        publisher: Publisher,
        metrics: RollupMetrics,
        *,
        events_a_turn: int = _EVENTS_A_TURN,
    ) -> None:
        self._database = database
        self._signals = signals
        self._publisher = publisher
        self._metrics = metrics
        self._tracer = get_tracer("services.usage")
        self._events_a_turn = events_a_turn
        self._most = min(events_a_turn, _EVENTS_AT_FIRST)
        # Events in a transaction, by what the last turn had.
        self._density = rollup.MAX_EVENTS_A_TRANSACTION

    def turn(self) -> Turn | None:
        """Take in what has ended since the last turn, at most a slice; None if nothing has.

        After a failure the next turn takes a quarter of it: what was too much for one transaction must not stay so.

        Raises:
            sqlalchemy.exc.DBAPIError: nothing was taken in, or all of it if the commit came through.
        """
        try:
            taken = self._turn()
        except Exception:
            # Whether the totals moved is not known: the counters are written from what is stored.
            self.forget()
            self._shrink(4)
            self._density = rollup.MAX_EVENTS_A_TRANSACTION
            raise
        if taken is None:
            return None
        turn, moved = taken
        # The turn stands, whatever becomes of the counters.
        self._publisher.publish(turn, moved)
        self._count(moved)
        return turn

    def _size_up(self, turn: Turn, seconds: float) -> None:
        """Let the next turn take in what a transaction's time allows: what an event costs depends on the meters."""
        if seconds > _LONG_TURN_SECONDS:
            self._shrink(2)
        elif seconds < _SHORT_TURN_SECONDS and turn.as_of is None:
            self._most = min(self._most * 2, self._events_a_turn)

    def _shrink(self, divisor: int) -> None:
        self._most = min(self._events_a_turn, max(self._most // divisor, _FEWEST_EVENTS_A_TURN))

    def forget(self) -> None:
        """Begin anew with the live counters: others may have moved totals, or a turn's end is not known."""
        self._publisher.forget()

    def _turn(self) -> tuple[Turn, list[Moved]] | None:
        started = time.perf_counter()
        with self._database.transaction() as conn:
            same_cluster = rollup.is_same_cluster(conn)
        if not same_cluster:
            self._raise_generation()
        with self._database.transaction() as conn:
            turn = rollup.begin(conn, self._most, self._density)
            if turn is None:
                return None
            taken, moved = self._take(conn, turn)
            rollup.advance(conn, turn)
        if taken.counted:
            self._density = min(_DENSER * taken.counted // (turn.upto - turn.last) + 1, rollup.MAX_EVENTS_A_TRANSACTION)
        seconds = time.perf_counter() - started
        self._size_up(turn, seconds)
        self._metrics.turned(seconds, taken.age if taken.counted else None)
        return turn, moved

    def _take(self, conn: sa.Connection, turn: Turn) -> tuple[Taken, list[Moved]]:
        """Do a turn's work in its transaction; return what it took in and what moved."""
        taken = rollup.add(conn, turn)
        recount.set_anew(conn, turn)
        self._correct(conn, turn)
        moved = rollup.moved(conn)
        if moved:
            self._signals.put(conn, turn)
        return taken, moved

    def _correct(self, conn: sa.Connection, turn: Turn) -> None:
        """Take the turn's corrections in, in a span of its own that links to who made them."""
        started = time.time_ns()
        contexts = corrected.set_anew(conn, turn)
        if not contexts:
            return
        links = [Link(get_current_span(telemetry.extract(each)).get_span_context()) for each in contexts]
        count = {"meterscope.corrections": len(contexts)}
        self._tracer.start_span("take corrections in", start_time=started, links=links, attributes=count).end()
        _log.info("corrected events are out of the totals", extra={"corrections": len(contexts)})

    def _raise_generation(self) -> None:
        """Roll up what the database had when it was restored; writers go on in the next generation."""
        with self._database.transaction() as conn:
            turn = generation.rest(conn)
            if turn is None:
                return
            self._take(conn, turn)
            generation.raise_one(conn)
        self.forget()
        _log.warning("the database was restored into another cluster; a new generation begins")

    def _count(self, moved: Sequence[Moved]) -> None:
        for each in moved:
            if each.added:
                # The totals carry the quantity; this number is for looking at, and OpenTelemetry has no decimals.
                self._metrics.added(each.customer_id, each.meter_id, float(each.added))


class RollupLoop:
    """A loop of the worker: turns, while this process holds the lease, and a look at what holds them back."""

    name = "rollup"

    def __init__(self, database: Database, turns: Rollup, metrics: RollupMetrics, state: RollupState) -> None:
        self._database = database
        self._turns = turns
        self._metrics = metrics
        self._state = state
        self._lease = Lease(database, "rollup", _LEASE)
        self._token = 0
        self._renewed = 0.0
        self._advanced = 0.0
        self._watched = 0.0
        self._rest = 0.0

    def run(self, stop: threading.Event) -> None:
        """Roll up until stopped. PostgreSQL going away is waited out."""
        listener = Listener(self._database, channel(self._database))
        impatient = Listener(self._database, hurry_channel(self._database))
        try:
            self._run(listener, impatient, stop)
        finally:
            listener.close()
            impatient.close()
        self._give_up()

    def _run(self, listener: Listener, impatient: Listener, stop: threading.Event) -> None:
        noticed = True
        while not stop.is_set():
            pause = _TICK_SECONDS
            try:
                pause = self._round(noticed=noticed)
            except Exception as error:
                self._count_failure(error)
                if not is_unavailable(error):
                    raise
                _log.warning("the rollup waits: the database is away", extra={"error": str(error)})
            noticed = impatient.wait(self._rest, stop) or listener.wait(pause, stop)

    def _round(self, *, noticed: bool) -> float:
        """Turn once if there is reason to; return how long to wait for a notice before the next round."""
        self._rest = 0.0
        if not self._holds_lease():
            return _WITHOUT_LEASE_SECONDS
        self._watch()
        started = time.monotonic()
        if not noticed and started - self._advanced < _IDLE_SECONDS:
            with self._database.autocommit() as conn:
                if not rollup.has_work(conn):
                    return _TICK_SECONDS
        turn = self._turns.turn()
        if turn is None:
            return _TICK_SECONDS
        self._advanced = time.monotonic()
        if turn.as_of is None:
            # It was cut: the next one is as full, whenever it comes.
            return 0.0
        self._rest = min(_REST_PER_TURN * (self._advanced - started), _LONGEST_REST)
        return _TICK_SECONDS

    def _count_failure(self, error: Exception) -> None:
        """Count a round that failed, by whose usage waits for it where the database still says so."""
        if is_unavailable(error):
            self._metrics.failed(UNAVAILABLE)
            return
        whose: Sequence[tuple[str, str]] = ()
        try:
            with self._database.autocommit() as conn:
                whose = waiting.customers_and_meters(conn)
        except sa.exc.DBAPIError:
            _log.debug("whose usage waits is not known", exc_info=True)
        is_data = isinstance(getattr(error, "orig", None), (psycopg.DataError, psycopg.IntegrityError))
        self._metrics.failed(DATA if is_data else INTERNAL, whose)

    def _holds_lease(self) -> bool:
        now = time.monotonic()
        if not self._lease.held or now - self._renewed > _LEASE.total_seconds() / 4:
            held = self._lease.acquire()
            self._renewed = now
            if not held:
                self._report_nothing()
            elif self._lease.token != self._token:
                # Another process may have rolled up in between.
                self._token = self._lease.token
                self._turns.forget()
            return held
        return True

    def _watch(self) -> None:
        """End what holds the rollup back and is ours; measure the rest."""
        now = time.monotonic()
        if now - self._watched < _WATCH_SECONDS:
            return
        self._watched = now
        with self._database.autocommit() as conn:
            for application in holders.terminate(conn, _HOLD_LIMIT):
                _log.error("ended a transaction that held the rollup back", extra={"application": application})
            self._state.as_of = places.rollup(conn).as_of
            self._state.holders = holders.holders(conn, _HOLD_LIMIT)
            self._state.snapshot_age = holders.oldest_snapshot(conn)

    def _report_nothing(self) -> None:
        self._state.as_of = self._state.snapshot_age = None
        self._state.holders = ()

    def _give_up(self) -> None:
        self._report_nothing()
        self._lease.give_up()
