"""Meters: how events become quantities."""

from collections.abc import Callable
from datetime import datetime

from services.kit import paging
from services.kit.db import Database
from services.usage.domain.meter import Meter
from services.usage.errors import MeterExists, MeterNotFound
from services.usage.store import meters, places


class Meters:
    """Creates and shows meters."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def create(self, meter: Meter) -> Meter:
        """Create a meter that counts events from now on; the same definition again returns the one that exists.

        Raises:
            MeterExists: the id is taken by another definition.
        """
        with self._database.transaction() as conn:
            tx = places.writer(conn)
            meters.create(conn, meter, tx=tx, now=self._clock())
            stored = meters.find(conn, meter.id)
        if stored is None or not stored.meter.same_definition(meter):
            raise MeterExists(meter.id)
        return stored.meter

    def get(self, meter_id: str) -> Meter:
        """Return a meter.

        Raises:
            MeterNotFound: there is none.
        """
        with self._database.autocommit() as conn:
            stored = meters.find(conn, meter_id)
        if stored is None:
            raise MeterNotFound(meter_id)
        return stored.meter

    def page(self, page_size: int, page_token: str) -> tuple[list[Meter], str]:
        """Return a page of meters by id, and the token of the next.

        Raises:
            InvalidArgument: a bad page size or token.
        """
        size = paging.page_size(page_size)
        behind = paging.position(page_token, {}, str)
        with self._database.autocommit() as conn:
            found = meters.page(conn, behind or "", size + 1)
        shown = [stored.meter for stored in found[:size]]
        return shown, paging.encode_token([shown[-1].id], {}) if len(found) > size else ""
