"""Showing stored events."""

from services.kit.db import Database
from services.usage.domain.event import identity_digest
from services.usage.errors import CustomerNotFound, EventNotFound, MeterNotFound
from services.usage.store import customers, events, meters
from services.usage.store.events import Filter, StoredEvent
from services.usage.usecases import event_pages


class Events:
    """Reads events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, customer_id: str, source: str, event_id: str) -> StoredEvent:
        """Return an event.

        Raises:
            CustomerNotFound: there is no such customer.
            EventNotFound: it has no such event.
        """
        digest = identity_digest(source.encode(), event_id.encode())
        with self._database.autocommit() as conn:
            number = customers.number(conn, customer_id)
            if number is None:
                raise CustomerNotFound(customer_id)
            found = events.find(conn, number, digest)
        if found is None:
            raise EventNotFound(customer_id, source, event_id)
        return found

    def page(self, customer_id: str, chosen: Filter, page_size: int, page_token: str) -> tuple[list[StoredEvent], str]:
        """Return a page of a customer's events and the token of the next; see `event_pages.page`.

        Raises:
            MeterNotFound: there is no such meter.
        """
        if chosen.meter:
            with self._database.autocommit() as conn:
                if meters.find(conn, chosen.meter) is None:
                    raise MeterNotFound(chosen.meter)
        return event_pages.page(self._database, events.page, customer_id, chosen, page_size, page_token)
