"""Times of call records as exchanges write them, and the instants that they are."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from services.kit.errors import InvalidArgument
from services.usage.domain.instant import MICROSECONDS, to_us

ISO: Final = "iso"
UNIX: Final = "unix"
_DIGITS: Final = "%Y%m%d%H%M%S"
# Of two by which the same text is a time, one has the day where the other has the month.
_KNOWN: Final = (
    ISO,
    UNIX,
    "%d/%m/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M:%S %p",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d-%m-%Y %H:%M:%S",
    "%m-%d-%Y %H:%M:%S",
    "%d-%m-%Y %H:%M",
    "%m-%d-%Y %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    _DIGITS,
    "%d %b %Y %H:%M:%S",
    "%d-%b-%Y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",
)
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)
_UNIX: Final = re.compile(r"(\d{9,10}(?:\.\d{1,9})?)|(\d{12,13})", re.ASCII)
_PROBE: Final = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)


class Times:
    """Reads times of one format."""

    def __init__(self, form: str, zone: ZoneInfo) -> None:
        """Prepare.

        Args:
            form: `iso`, `unix`, or directives of strptime.
            zone: of times without an offset.

        Raises:
            InvalidArgument: no such format, or one that leaves the day or the minute open.
        """
        self.form = form
        self._zone = zone
        self._parse = _parser(form)

    def read(self, text: str) -> int:
        """Return an instant in microseconds since 1970. Of a local time that occurs twice the first is meant.

        Raises:
            ValueError: not of the format, or no time of the zone; says which.
        """
        try:
            found = self._parse(text)
        except (ValueError, OverflowError):
            raise ValueError(f"{text[:64]!r} is no time of the format {self.form!r}") from None
        if isinstance(found, int):
            return found
        try:
            if found.tzinfo is not None:
                return to_us(found.astimezone(UTC))
            instant = found.replace(tzinfo=self._zone).astimezone(UTC)
            exists = instant.astimezone(self._zone).replace(tzinfo=None) == found
        except (ValueError, OverflowError):
            raise ValueError(f"{text[:64]!r} is outside the years that a calendar has") from None
        if not exists:
            raise ValueError(f"{text[:64]!r} does not occur in {self._zone.key}, where clocks were put forward over it")
        return to_us(instant)


def told(samples: Sequence[str], zone: ZoneInfo) -> Times:
    """Tell the format: the one that the most samples have; ISO without any sample.

    Raises:
        InvalidArgument: none fits, or two.
    """
    if not samples:
        return Times(ISO, zone)
    parsers = {form: _parser(form) for form in _KNOWN}
    fits = {form: sum(_fits(parse, text) for text in samples) for form, parse in parsers.items()}
    most = max(fits.values())
    if most == 0:
        raise InvalidArgument.at(
            "time_format",
            f"no known format fits times such as {samples[0][:64]!r}; give it, as in %d/%m/%Y %H:%M:%S",
            reason="UNKNOWN_TIME_FORMAT",
        )
    best = [form for form, count in fits.items() if count == most]
    # Even where all samples are the same time by both: those behind them may not be.
    if len(best) > 1:
        raise InvalidArgument.at(
            "time_format",
            f"times such as {samples[0][:64]!r} may be {best[0]!r} or {best[1]!r}; say which",
            reason="AMBIGUOUS_TIME_FORMAT",
        )
    return Times(best[0], zone)


def _fits(parse: Callable[[str], datetime | int], text: str) -> bool:
    try:
        parse(text)
    except (ValueError, OverflowError):
        return False
    return True


def _parser(form: str) -> Callable[[str], datetime | int]:
    if form == ISO:
        return _iso
    if form == UNIX:
        return _unix
    if form == _DIGITS:
        return _digits

    def parse(text: str) -> datetime:
        return datetime.strptime(text, form)  # noqa: DTZ007 - the zone follows

    try:
        probe = parse(_PROBE.strftime(form))
    except (ValueError, re.error):
        probe = None
    if probe is None or probe.replace(tzinfo=UTC, second=0) != _PROBE.replace(second=0):
        raise InvalidArgument.at(
            "time_format",
            f"{form[:64]!r} is neither iso nor unix, nor do its directives give year, month, day, hour and minute",
            reason="BAD_TIME_FORMAT",
        )
    return parse


def _iso(text: str) -> datetime:
    if not _ISO.match(text):
        raise ValueError(text)
    return datetime.fromisoformat(text)


def _digits(text: str) -> datetime:
    # strptime alone reads fewer digits, too: seconds since 1970 among them.
    if len(text) != len("20251101100000"):
        raise ValueError(text)
    return datetime.strptime(text, _DIGITS)  # noqa: DTZ007 - the zone follows


def _unix(text: str) -> int:
    found = _UNIX.fullmatch(text)
    if found is None:
        raise ValueError(text)
    if found[2]:
        return int(found[2]) * 1000
    return int(Decimal(found[1]) * MICROSECONDS)
