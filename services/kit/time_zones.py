"""Which names are those of time zones."""

from functools import cache
from typing import Final
from zoneinfo import available_timezones

# Files of a machine's time zone database that are no place's time: the first two are what the machine is set to, which
# differs from server to server and changes; the third says that it was never set. Totals and invoices are cut by zones.
_NO_PLACES: Final = frozenset({"localtime", "posixrules", "Factory"})


def is_time_zone(name: str) -> bool:
    """Say whether a name is an IANA time zone's, such as Asia/Kolkata; as it is written there."""
    return name in _names()


@cache
def _names() -> frozenset[str]:
    """Reads the whole database, so once a process; without its copies below posix/ and right/ (with leap seconds)."""
    return frozenset(available_timezones() - _NO_PLACES)
