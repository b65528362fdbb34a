"""Meters: how events become quantities."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from services.kit import paging
from services.kit.db import Database
from services.kit.errors import InvalidArgument
from services.kit.outbox import Outbox
from services.usage.domain.instant import EARLIEST
from services.usage.domain.meter import Meter, check_display
from services.usage.domain.recount import Recount
from services.usage.errors import MeterArchived, MeterExists, MeterNotFound, RawEventsNeeded, RecountRunning
from services.usage.store import meters, places, recounts
from services.usage.store.meters import StoredMeter
from services.usage.usecases.recounts import RECOUNT_METER


class Meters:
    """Creates, changes and shows meters; each with its last recount, None without any."""

    def __init__(self, database: Database, outbox: Outbox, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._outbox = outbox
        self._clock = clock

    def create(self, meter: Meter) -> tuple[Meter, Recount | None]:
        """Create a meter that counts events from now on, and stored ones if it says since when.

        The same definition again returns the one that exists.

        Raises:
            MeterExists: the id is taken by another definition.
            InvalidArgument: it is to count events that have not happened yet.
            RawEventsNeeded: it is to count events that are not kept any more.
        """
        now = self._clock()
        with self._database.transaction() as conn:
            tx = places.writer(conn)
            if meters.find(conn, meter.id) is None:
                self._check_count_from(conn, meter.count_from, now)
            is_new = meters.create(conn, meter, tx=tx, now=now)
            stored = self._find(conn, meter.id)
            if is_new and meter.count_from is not None:
                self._recount(conn, stored, meter.count_from, now)
            shown = self._shown(conn, stored)
        if not meter.same_definition(stored.meter):
            raise MeterExists(meter.id)
        return shown

    def get(self, meter_id: str) -> tuple[Meter, Recount | None]:
        """Return a meter.

        Raises:
            MeterNotFound: there is none.
        """
        with self._database.autocommit() as conn:
            return self._shown(conn, self._find(conn, meter_id))

    def update(self, meter_id: str, unit: str | None, description: str | None) -> tuple[Meter, Recount | None]:
        """Change what people see of a meter; None leaves it as it is.

        Raises:
            MeterNotFound: there is none.
            InvalidArgument: too long, or with a NUL.
        """
        check_display(unit or "", description or "")
        with self._database.transaction() as conn:
            stored = self._find(conn, meter_id)
            shown = replace(
                stored.meter,
                unit=stored.meter.unit if unit is None else unit,
                description=stored.meter.description if description is None else description,
            )
            meters.update(conn, stored.number, shown.unit, shown.description)
            return self._shown(conn, self._find(conn, meter_id))

    def archive(self, meter_id: str) -> tuple[Meter, Recount | None]:
        """Have a meter count no event that is taken in from now on; its totals stay. Again, it changes nothing.

        Raises:
            MeterNotFound: there is none.
        """
        with self._database.transaction() as conn:
            tx = places.writer(conn)
            stored = self._find(conn, meter_id)
            meters.archive(conn, stored.number, tx=tx, now=self._clock())
            return self._shown(conn, self._find(conn, meter_id))

    def recount(self, meter_id: str, count_from: datetime | None) -> tuple[Meter, Recount | None]:
        """Begin to set a meter's totals anew from stored events; while that is under way, nothing more is begun.

        Args:
            meter_id: of the meter.
            count_from: of the events that were stored before the meter was created, count those of this time or later
                from now on. None: as it is.

        Raises:
            MeterNotFound: there is none.
            MeterArchived: it counts nothing more.
            InvalidArgument: `count_from` is set already, otherwise, or lies ahead.
            RawEventsNeeded: events from there on are not kept any more.
            RecountRunning: `count_from` is to be set while a recount is under way.
        """
        now = self._clock()
        with self._database.transaction() as conn:
            places.writer(conn)
            stored = self._find(conn, meter_id)
            if stored.meter.archive_time is not None:
                raise MeterArchived(meter_id)
            if count_from is not None and stored.meter.count_from != count_from:
                if stored.meter.count_from is not None:
                    raise InvalidArgument.at(
                        "count_from",
                        f"the meter counts from {stored.meter.count_from.isoformat()} on, which stays; create another"
                        " meter, or leave it out",
                    )
                self._check_count_from(conn, count_from, now)
                meters.count_from(conn, stored.number, count_from)
            floor = places.floor(conn, places.RAW) or EARLIEST
            begun = self._recount(conn, stored, floor if count_from is None else max(count_from, floor), now)
            if not begun and count_from != stored.meter.count_from and count_from is not None:
                # The recount under way has passed customers whose stored events would count from now on.
                raise RecountRunning(meter_id)
            return self._shown(conn, self._find(conn, meter_id))

    def page(self, page_size: int, page_token: str) -> tuple[list[tuple[Meter, Recount | None]], str]:
        """Return a page of meters by id, and the token of the next.

        Raises:
            InvalidArgument: a bad page size or token.
        """
        size = paging.page_size(page_size)
        behind = paging.position(page_token, {}, str)
        with self._database.autocommit() as conn:
            found = meters.page(conn, behind or "", size + 1)
            shown = [self._shown(conn, stored) for stored in found[:size]]
        return shown, paging.encode_token([shown[-1][0].id], {}) if len(found) > size else ""

    def _find(self, conn: sa.Connection, meter_id: str) -> StoredMeter:
        stored = meters.find(conn, meter_id)
        if stored is None:
            raise MeterNotFound(meter_id)
        return stored

    def _shown(self, conn: sa.Connection, stored: StoredMeter) -> tuple[Meter, Recount | None]:
        return stored.meter, recounts.latest(conn, stored.number)

    def _check_count_from(self, conn: sa.Connection, count_from: datetime | None, now: datetime) -> None:
        if count_from is None:
            return
        if count_from > now:
            raise InvalidArgument.at(
                "count_from", f"{count_from.isoformat()} lies ahead; leave it out to count from now on"
            )
        floor = places.floor(conn, places.RAW)
        if floor is not None and count_from < floor:
            raise RawEventsNeeded(count_from, floor)

    def _recount(self, conn: sa.Connection, stored: StoredMeter, start: datetime, now: datetime) -> bool:
        number = recounts.begin(conn, stored.number, start, now)
        if number is not None:
            self._outbox.put(conn, job=RECOUNT_METER, payload={"recount": number})
        return number is not None
