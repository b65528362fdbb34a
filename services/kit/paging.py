"""Keyset paging (AIP-158): the token names the last key seen, so that pages neither skip nor repeat rows.

A token is opaque and bound to the filters it was made with.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import orjson

from services.kit.errors import InvalidArgument

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1_000

Key = TypeVar("Key")


def page_size(requested: int) -> int:
    """Return how many rows a page has: 100 for 0, never above 1,000.

    Raises:
        InvalidArgument: negative.
    """
    if requested < 0:
        raise InvalidArgument.at("page_size", f"{requested} is negative; use 0 for the default of {DEFAULT_PAGE_SIZE}")
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(key: list[str], filters: Mapping[str, str]) -> str:
    """Return the token of the page behind `key` (the sort key of the last row, as strings)."""
    return base64.urlsafe_b64encode(orjson.dumps([_digest(filters), *key])).decode().rstrip("=")


def decode_token(token: str, filters: Mapping[str, str]) -> list[str] | None:
    """Return the key to go on behind, or None for the first page.

    Raises:
        InvalidArgument: not a token of ours, or of a request with other filters.
    """
    if not token:
        return None
    try:
        parts = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        parts = None
    # PostgreSQL can look for no NUL, and no key of ours holds one.
    if (
        not isinstance(parts, list)
        or not parts
        or not all(isinstance(part, str) and "\0" not in part for part in parts)
    ):
        raise InvalidArgument.at("page_token", "is not a token that a page gave; leave it out for the first page")
    if parts[0] != _digest(filters):
        raise InvalidArgument.at(
            "page_token", "belongs to a request with other filters; leave it out for the first page"
        )
    return parts[1:]


def position(token: str, filters: Mapping[str, str], read: Callable[..., Key]) -> Key | None:
    """Return what `read` makes of the key to go on behind, or None for the first page.

    Raises:
        InvalidArgument: see `decode_token`; or `read` cannot take the key: a token of another list, or a made-up one.
    """
    key = decode_token(token, filters)
    if key is None:
        return None
    try:
        return read(*key)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument.at(
            "page_token", "is not a token that a page of this list gave; leave it out for the first page"
        ) from None


def _digest(filters: Mapping[str, str]) -> str:
    return hashlib.blake2b(orjson.dumps(sorted(filters.items())), digest_size=6).hexdigest()
