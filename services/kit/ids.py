"""Identifiers: a prefix that says what it is, then a UUIDv7 (RFC 9562), so that ids sort by the time they were made."""

import uuid_utils


def new_id(prefix: str) -> str:
    """Return `prefix_` and 32 hex digits, such as `cus_018f…`. Later ids sort behind earlier ones (to 1 ms)."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"
