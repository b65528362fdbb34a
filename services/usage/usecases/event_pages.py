"""Pages of what is stored as a customer's events, in the order of their time."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

import sqlalchemy as sa

from services.kit import paging
from services.kit.db import Database
from services.usage.domain.instant import from_us, to_us
from services.usage.errors import CustomerNotFound, RawEventsGone
from services.usage.store import customers, places
from services.usage.store.events import Key


class Chosen(Protocol):
    """What is asked for: a dataclass whose fields are the filters, of which `start` and `end` are None where open."""

    @property
    def start(self) -> datetime | None:
        """Only what happened at or after it."""

    @property
    def end(self) -> datetime | None:
        """Only what happened before it."""


C = TypeVar("C", bound=Chosen)
Item = TypeVar("Item")
# Reads at most so many of a customer's (by number) behind a place.
Read = Callable[[sa.Connection, int, C, Key | None, int], list[tuple[Key, Item]]]


def page(
    database: Database, read: Read[C, Item], customer_id: str, chosen: C, page_size: int, page_token: str
) -> tuple[list[Item], str]:
    """Return a page, oldest first, and the token of the next.

    Raises:
        CustomerNotFound: there is no such customer.
        RawEventsGone: the range begins or ends before the oldest raw events that are kept.
        InvalidArgument: a bad page size or token.
    """
    filters = {"customer_id": customer_id} | {name: str(value) for name, value in vars(chosen).items()}
    size = paging.page_size(page_size)
    behind = paging.position(page_token, filters, lambda time, digest: Key(from_us(int(time)), UUID(digest)))
    with database.autocommit() as conn:
        number = customers.number(conn, customer_id)
        if number is None:
            raise CustomerNotFound(customer_id)
        _check_kept(chosen, places.floor(conn, places.RAW))
        found = read(conn, number, chosen, behind, size + 1)
    shown = found[:size]
    token = ""
    if len(found) > size:
        last = shown[-1][0]
        token = paging.encode_token([str(to_us(last.time)), str(last.digest)], filters)
    return [item for _, item in shown], token


def _check_kept(chosen: Chosen, floor: datetime | None) -> None:
    """See that what is asked for by time was not taken away: a list without it would look complete."""
    if floor is None:
        return
    if chosen.start is not None and chosen.start < floor:
        raise RawEventsGone("start_time", chosen.start, floor)
    if chosen.end is not None and chosen.end <= floor:
        raise RawEventsGone("end_time", chosen.end, floor)
