"""Pages of lists whose key is one id."""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar

from services.alerts.domain.text import check_text
from services.kit import paging
from services.kit.errors import InvalidArgument

MAX_ID: Final = 256


class Listed(Protocol):
    """Something with an id."""

    @property
    def id(self) -> str:
        """The id, by which the list is ordered."""


T = TypeVar("T", bound=Listed)


def position(token: str, filters: Mapping[str, str]) -> str | None:
    """Return the id behind which the page begins; None for the first page.

    Raises:
        InvalidArgument: not a token of a list with these filters.
    """
    key = paging.decode_token(token, filters)
    if key is None:
        return None
    if len(key) != 1 or "\0" in key[0]:
        raise InvalidArgument.at("page_token", "is not a token that a page gave; leave it out for the first page")
    return key[0]


def cut(rows: Sequence[T], size: int, filters: Mapping[str, str]) -> tuple[Sequence[T], str]:
    """Return the page out of `size + 1` rows, and the next page's token, empty if there is none."""
    page = rows[:size]
    return page, paging.encode_token([page[-1].id], filters) if len(rows) > size else ""


def filters(**given: str) -> dict[str, str]:
    """Return the filters that are set, by column.

    Raises:
        InvalidArgument: one is longer than any value can be.
    """
    for name, value in given.items():
        check_text(name, value, most=MAX_ID)
    return {name: value for name, value in given.items() if value}
