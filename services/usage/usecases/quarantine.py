"""Events that are held: shown, and sent through the ordinary path again."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn, TypeVar
from uuid import UUID

import psycopg
import sqlalchemy as sa
from google.protobuf.message import Message

from services.kit import paging
from services.kit.db import Database
from services.kit.idempotency import once
from services.usage.domain.instant import from_us, to_us
from services.usage.domain.verdict import UNSTORABLE, Outcome, Verdict
from services.usage.store import ingest, places, quarantine
from services.usage.store.ingest import driver
from services.usage.store.placed import Placed
from services.usage.store.quarantine import Filter, Held, Key
from services.usage.usecases.catalogue import Catalogue
from services.usage.usecases.notifier import Notifier

_CHUNK: Final = 1_000
# Held events that are looked at in one transaction: a fraction of a second.
_STRETCH: Final = 50_000
_METHOD: Final = "ReplayQuarantinedEvents"

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Page:
    """A page of held events; `total` counts all under the filter."""

    held: list[Held]
    next_token: str
    total: int


@dataclass
class Replayed:
    """What became of held events; `held` counts those that still are."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    held: int = 0


class Quarantine:
    """Deals with held events."""

    def __init__(
        self, database: Database, catalogue: Catalogue, notifier: Notifier, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._notifier = notifier
        self._clock = clock

    def page(self, chosen: Filter, page_size: int, page_token: str) -> Page:
        """Return a page of held events in the order of receipt.

        Raises:
            InvalidArgument: a bad page size or token.
        """
        filters = {"customer_key": chosen.customer_key, "reason": chosen.reason}
        size = paging.page_size(page_size)
        behind = paging.position(page_token, filters, _key)
        with self._database.transaction() as conn:
            found = quarantine.page(conn, chosen, behind, size + 1)
            total = quarantine.count(conn, chosen)
        shown = found[:size]
        token = ""
        if len(found) > size:
            last = shown[-1].key
            token = paging.encode_token([str(to_us(last.received)), str(last.digest), str(last.content)], filters)
        return Page(shown, token, total)

    def replay_once(
        self, chosen: Filter, request: Message, request_id: str, encode: Callable[[Replayed], M], response_type: type[M]
    ) -> M:
        """Replay under a request id: a repeat gets the first answer and replays nothing.

        The chunks are transactions of their own, each exactly once by the events' identities; the answer is stored
        behind them. A repeat after a crash on the way goes on with what is still held.
        """

        def answer(act: Callable[[], M]) -> M:
            with self._database.transaction() as conn:
                return once(
                    conn,
                    method=_METHOD,
                    request_id=request_id,
                    request=request,
                    response_type=response_type,
                    act=act,
                )

        try:
            return answer(_not_yet)
        except _Unanswered:
            replayed = self.replay(chosen)
        return answer(lambda: encode(replayed))

    def replay(self, chosen: Filter) -> Replayed:
        """Send held events whose customer and type are known by now through the ordinary path, a chunk a transaction."""
        replayed = Replayed()
        behind: Key | None = None
        while True:
            with self._database.autocommit() as conn:
                upto = quarantine.look_ahead(conn, chosen, behind, _STRETCH)
            self._replay_stretch(chosen, behind, upto, replayed)
            if upto is None:
                break
            behind = upto
        with self._database.transaction() as conn:
            replayed.held = quarantine.count(conn, chosen)
        if replayed.outcomes[Outcome.ACCEPTED]:
            self._notifier.notice()
        return replayed

    def _replay_stretch(self, chosen: Filter, behind: Key | None, upto: Key | None, replayed: Replayed) -> None:
        limit = _CHUNK
        while True:
            try:
                held = self._replay_chunk(chosen, behind, upto, limit, replayed)
            except (sa.exc.DataError, sa.exc.IntegrityError, psycopg.DataError, psycopg.IntegrityError):
                # Halve until the event that the database refuses stands alone.
                if limit > 1:
                    limit //= 2
                    continue
                held = self._refuse_next(chosen, behind, upto)
                replayed.outcomes[Outcome.REJECTED] += len(held)
            if not held:
                break
            behind, limit = held[-1].key, _CHUNK

    def _replay_chunk(
        self, chosen: Filter, behind: Key | None, upto: Key | None, limit: int, replayed: Replayed
    ) -> list[Held]:
        """Replay one chunk in a transaction of its own, and return what it looked at."""
        with self._database.transaction() as conn:
            places.writer(conn)
            held = quarantine.lock_known(conn, chosen, behind, upto, limit)
            if not held:
                return []
            placed = self._catalogue.place([each.event for each in held])
            batch = [
                Placed(each.event, customer, reason or each.reason, each.span_id, sampled=False)
                for each, (customer, reason) in zip(held, placed, strict=True)
            ]
            verdicts = ingest.write(driver(conn), batch, self._clock())
            _settle(conn, held, verdicts)
        replayed.outcomes.update(verdict.outcome for verdict in verdicts if verdict.outcome is not Outcome.QUARANTINED)
        return held

    def _refuse_next(self, chosen: Filter, behind: Key | None, upto: Key | None) -> list[Held]:
        with self._database.transaction() as conn:
            held = quarantine.lock_known(conn, chosen, behind, upto, 1)
            quarantine.refuse(conn, [each.key for each in held], UNSTORABLE.reason)
        return held


def _key(received: str, digest: str, content: str) -> Key:
    return Key(from_us(int(received)), UUID(digest), UUID(content))


class _Unanswered(Exception):
    """The request was not answered before."""


def _not_yet() -> NoReturn:
    raise _Unanswered


def _settle(conn: sa.Connection, held: Sequence[Held], verdicts: Sequence[Verdict]) -> None:
    """Remove what went in, now or before; mark what never will."""
    gone = []
    refused: dict[str, list[Key]] = {}
    for each, verdict in zip(held, verdicts, strict=True):
        if verdict.outcome in {Outcome.ACCEPTED, Outcome.DUPLICATE}:
            gone.append(each.key)
        elif verdict.outcome is not Outcome.QUARANTINED:
            refused.setdefault(verdict.reason, []).append(each.key)
    if gone:
        quarantine.release(conn, gone)
    for reason, keys in refused.items():
        quarantine.refuse(conn, keys, reason)
