"""What a process knows by heart: numbers of customers, meters and known event types, entitlements.

What is not known is asked of the database before anybody is told so. What is known is dropped when the customer
changes: a thread asks every 400 ms who did, by the order of transactions, so that no change is missed.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from services.kit.db import Database, is_unavailable
from services.usage.domain.event import Event
from services.usage.domain.verdict import UNKNOWN_CUSTOMER, UNKNOWN_EVENT_TYPE
from services.usage.errors import CustomerNotFound, MeterNotFound
from services.usage.store import customers, meters, wire
from services.usage.store.customers import Customer
from services.usage.store.meters import StoredMeter

_REFRESH_SECONDS: Final = 0.4
_MOST: Final = 500_000
_MOST_CUSTOMERS: Final = 100_000

_log = logging.getLogger(__name__)


class Catalogue:
    """The memory of one process. `run` must be running while it is relied on."""

    name = "catalogue"

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._seen = 0
        self._generation = 0
        # Grows when something is dropped: what was read before that is used, but not remembered.
        self._version = 0
        self._ids: dict[str, bytes] = {}
        self._keys: dict[str, bytes] = {}
        self._keys_of: dict[int, set[str]] = {}
        self._customers: dict[str, Customer] = {}
        self._meters: dict[str, StoredMeter] = {}
        self._types: set[bytes] = set()

    def run(self, stop: threading.Event) -> None:
        """Follow changes until stopped."""
        away = False
        while not stop.wait(_REFRESH_SECONDS):
            try:
                with self._database.autocommit() as conn:
                    changed = customers.changed_since(conn, self._seen)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                # Once an outage: this is asked several times a second.
                if not away:
                    _log.warning("cannot ask which customers changed; what is known stays in use", exc_info=True)
                away = True
                continue
            away = False
            self._forget(changed)

    def place(self, events: Sequence[Event]) -> list[tuple[bytes, str]]:
        """Return for each event its customer's number (see `wire.int8`) and "", or nothing and why it must be held."""
        ids, keys, types = self._ids, self._keys, self._types
        found = [keys.get(event.customer_key) or ids.get(event.customer_id) for event in events]
        if None in found:
            self._ask(events, found)
        sent = {event.type for event in events}
        if not sent <= types:
            types = self._read_meters()
        if sent <= types and None not in found:
            return [(customer or b"", "") for customer in found]
        return [
            (customer, "") if customer and event.type in types else (b"", _reason(customer))
            for event, customer in zip(events, found, strict=True)
        ]

    def customer(self, customer_id: str) -> Customer:
        """Return a customer with its limits and the current period.

        Raises:
            CustomerNotFound: there is none.
        """
        now = self._clock()
        known = self._customers.get(customer_id)
        if known is not None and known.period.start <= now < known.period.end:
            return known
        version = self._version
        with self._database.autocommit() as conn:
            found = customers.find(conn, customer_id, now)
        if found is None:
            raise CustomerNotFound(customer_id)
        with self._lock:
            if len(self._customers) >= _MOST_CUSTOMERS:
                self._customers = {}
            if version == self._version:
                self._customers[customer_id] = found
        return found

    def meter(self, meter_id: str) -> StoredMeter:
        """Return a meter.

        Raises:
            MeterNotFound: there is none.
        """
        if meter_id not in self._meters:
            self._read_meters()
        try:
            return self._meters[meter_id]
        except KeyError:
            raise MeterNotFound(meter_id) from None

    def _ask(self, events: Sequence[Event], found: list[bytes | None]) -> None:
        """Ask the database for the customers that are missing in `found`, and fill them in."""
        missing = [event for event, customer in zip(events, found, strict=True) if customer is None]
        ids = sorted({event.customer_id for event in missing if event.customer_id})
        keys = sorted({event.customer_key for event in missing if not event.customer_id})
        version = self._version
        with self._database.autocommit() as conn:
            resolved = customers.resolve(conn, ids, keys)
        by_id = {name: wire.int8(number) for name, number in resolved.ids.items()}
        by_key = {name: wire.int8(number) for name, number in resolved.keys.items()}
        for index, event in enumerate(events):
            if found[index] is None:
                found[index] = by_id.get(event.customer_id) if event.customer_id else by_key.get(event.customer_key)
        with self._lock:
            if len(self._ids) + len(self._keys) > _MOST:
                self._clear()
            self._ids.update(by_id)
            if version == self._version:
                self._keys.update(by_key)
                for name, number in resolved.keys.items():
                    self._keys_of.setdefault(number, set()).add(name)

    def _read_meters(self) -> set[bytes]:
        """Read all meters, and return the event types that they count."""
        with self._database.autocommit() as conn:
            stored = meters.every(conn)
        types = {each.meter.event_type.encode() for each in stored}
        with self._lock:
            self._meters = {each.meter.id: each for each in stored}
            self._types = types
        return types

    def _clear(self) -> None:
        self._ids, self._keys, self._keys_of = {}, {}, {}
        self._customers, self._meters, self._types = {}, {}, set()

    def _forget(self, changed: customers.Changed) -> None:
        with self._lock:
            if changed.generation != self._generation:
                self._version += 1
                self._clear()
            elif changed.customers:
                self._version += 1
                for number in changed.customers:
                    for key in self._keys_of.pop(number, ()):
                        self._keys.pop(key, None)
                gone = [name for name, known in self._customers.items() if known.number in changed.customers]
                for name in gone:
                    del self._customers[name]
            self._seen, self._generation = changed.seen, changed.generation


def _reason(customer: bytes | None) -> str:
    return UNKNOWN_EVENT_TYPE if customer else UNKNOWN_CUSTOMER
