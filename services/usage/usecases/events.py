"""Showing stored events."""

from datetime import datetime
from uuid import UUID

from services.kit import paging
from services.kit.db import Database
from services.usage.domain.event import identity_digest
from services.usage.domain.instant import from_us, to_us
from services.usage.errors import CustomerNotFound, EventNotFound, RawEventsGone
from services.usage.store import customers, events, places
from services.usage.store.events import Filter, Key, StoredEvent


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
        """Return a page of a customer's events, oldest first, and the token of the next.

        Raises:
            CustomerNotFound: there is no such customer.
            RawEventsGone: the range begins or ends before the oldest raw events that are kept.
            InvalidArgument: a bad page size or token.
        """
        filters = {
            "customer_id": customer_id,
            "start": str(chosen.start),
            "end": str(chosen.end),
            "type": chosen.type,
            "source": chosen.source,
            "state": str(chosen.state),
        }
        size = paging.page_size(page_size)
        behind = paging.position(page_token, filters, lambda time, digest: Key(from_us(int(time)), UUID(digest)))
        with self._database.autocommit() as conn:
            number = customers.number(conn, customer_id)
            if number is None:
                raise CustomerNotFound(customer_id)
            check_kept(chosen.start, chosen.end, places.floor(conn, places.RAW))
            found = events.page(conn, number, chosen, behind, size + 1)
        shown = found[:size]
        token = ""
        if len(found) > size:
            last = shown[-1][0]
            token = paging.encode_token([str(to_us(last.time)), str(last.digest)], filters)
        return [event for _, event in shown], token


def check_kept(start: datetime | None, end: datetime | None, floor: datetime | None) -> None:
    """See that what is asked for by time was not taken away: a list without it would look complete.

    Raises:
        RawEventsGone: the range begins or ends before the oldest raw events that are kept.
    """
    if floor is None:
        return
    if start is not None and start < floor:
        raise RawEventsGone("start_time", start, floor)
    if end is not None and end <= floor:
        raise RawEventsGone("end_time", end, floor)
