"""Usage that is not what it usually is: a window against the same hours of the weeks before and the windows before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from services.kit.money import plain
from services.usage.domain.calendar import days_earlier
from services.usage.domain.limit import Period

WEEKS: Final = 4
ROLLING: Final = 14
LEAST_WEEKS: Final = 2
LEAST_ROLLING: Final = 3
MAX_FACTOR: Final = 1_000
SIGNAL_CONFIDENCE: Final = Decimal("0.4")
_WEEK: Final = 7
_CONTEXT: Final = Context(prec=60, rounding=ROUND_HALF_UP)
_CENT: Final = Decimal("0.01")
_TENTH: Final = Decimal("0.1")
_MOST_PARTS: Final = 5
# A part that makes less of the movement explains nothing.
_LEAST_SHARE: Final = Decimal(20)
_NOTHING: Final = Decimal(0)


class Kind(StrEnum):
    """In which direction usage differs."""

    SPIKE = "SPIKE"
    DROP = "DROP"


@dataclass(frozen=True)
class Windows:
    """What is compared: a window, the same hours (by a zone's clock) of the weeks before, the windows right before."""

    window: Period
    weekly: tuple[Period, ...]
    rolling: tuple[Period, ...]

    @property
    def start(self) -> datetime:
        """The earliest instant of all."""
        return min(period.start for period in (*self.weekly, *self.rolling))


def windows(end: datetime, length: timedelta, zone: ZoneInfo) -> Windows:
    """Lay the windows out. A clock change makes one an hour longer or shorter: it is the same time of day that counts."""
    start = end - length
    weekly = tuple(
        Period(days_earlier(start, _WEEK * week, zone), days_earlier(end, _WEEK * week, zone))
        for week in range(1, WEEKS + 1)
    )
    rolling = tuple(Period(start - length * number, end - length * number) for number in range(1, ROLLING + 1))
    return Windows(Period(start, end), weekly, rolling)


@dataclass(frozen=True)
class Finding:
    """Why a window is an anomaly.

    Attributes:
        kind: the direction.
        seen: the window's value.
        expected: the median of the weeks before.
        weekly: their values, the last week first.
        rolling_median: of the windows right before; None with fewer than three.
        rolling_windows: how many those are.
        confidence: 0 to 1, to two decimals.
    """

    kind: Kind
    seen: Decimal
    expected: Decimal
    weekly: tuple[Decimal, ...]
    rolling_median: Decimal | None
    rolling_windows: int
    confidence: Decimal

    @property
    def ratio(self) -> Decimal:
        """Seen as a multiple of what was expected, to two decimals."""
        return _CONTEXT.divide(self.seen, self.expected).quantize(_CENT, context=_CONTEXT)


def judge(seen: Decimal, weekly: Sequence[Decimal], rolling: Sequence[Decimal], factor: Decimal) -> Finding | None:
    """Say whether a window is an anomaly.

    It is one if it is beyond the factor from both medians: that of the same hours of the weeks before, which knows of
    nights and weekends, and that of the windows right before, which knows of growth. The second is left out where there
    are fewer than three, and for a drop where it is 0: then usage comes once in a while, by the week. What was gone a
    week ago already is no drop any more.

    Args:
        seen: the window's value.
        weekly: the values of those weeks that lie in the meter's history, the last week first.
        rolling: the values of those windows that lie in it, the last one first.
        factor: above 1.
    """
    if len(weekly) < LEAST_WEEKS:
        return None
    expected = median(weekly)
    if expected <= 0:
        return None
    usual = median(rolling) if len(rolling) >= LEAST_ROLLING else None
    reference = usual if usual is not None else expected
    kind = None
    if seen > _CONTEXT.multiply(factor, max(expected, reference)):
        kind = Kind.SPIKE
    elif weekly[0] > 0 and _CONTEXT.multiply(seen, factor) < min(expected, reference or expected):
        kind = Kind.DROP
    if kind is None:
        return None
    return Finding(kind, seen, expected, tuple(weekly), usual, len(rolling), confidence(weekly))


def confidence(weekly: Sequence[Decimal]) -> Decimal:
    """Return how much a history bears: its weeks as a part of four, less its spread around its median, 0 to 1."""
    middle = median(weekly)
    if middle <= 0:
        return _NOTHING
    spread = min(Decimal(1), _CONTEXT.divide(median([abs(value - middle) for value in weekly]), middle))
    whole = _CONTEXT.divide(Decimal(min(len(weekly), WEEKS)), Decimal(WEEKS))
    return _CONTEXT.multiply(whole, 1 - spread).quantize(_CENT, context=_CONTEXT)


def median(values: Sequence[Decimal]) -> Decimal:
    """Return the median; of an even number, the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return _CONTEXT.divide(_CONTEXT.add(ordered[middle - 1], ordered[middle]), Decimal(2))


@dataclass(frozen=True)
class Part:
    """A part of the usage that moved: an attribute's value, and its share of the movement in percent."""

    name: str
    value: str
    expected: Decimal
    seen: Decimal
    share: Decimal


def moved(
    seen: Mapping[tuple[str, str], Decimal], expected: Mapping[tuple[str, str], Decimal], whole: Decimal
) -> list[Part]:
    """Return the parts that moved most in the direction of the whole, at most five that make a fifth of it each.

    Args:
        seen: by attribute and value.
        expected: likewise.
        whole: how far the whole moved, signed.
    """
    if not whole:
        return []
    parts = []
    for key in seen.keys() | expected.keys():
        was, is_ = expected.get(key, _NOTHING), seen.get(key, _NOTHING)
        share = _CONTEXT.divide(100 * _CONTEXT.subtract(is_, was), whole)
        if share >= _LEAST_SHARE:
            share = share.quantize(_TENTH, rounding=ROUND_HALF_EVEN, context=_CONTEXT)
            parts.append(Part(*key, expected=was, seen=is_, share=share))
    return sorted(parts, key=lambda part: (-part.share, part.name, part.value))[:_MOST_PARTS]


@dataclass(frozen=True)
class Anomaly:
    """A finding with what belongs to it."""

    customer_id: str
    meter: str
    window: Period
    factor: Decimal
    finding: Finding
    groups: tuple[Part, ...] = ()
    attributes: tuple[Part, ...] = ()
    other_meters: tuple[str, ...] = ()
    trace_ids: tuple[str, ...] = ()

    @property
    def explanation(self) -> str:
        """Say it in a sentence or two."""
        found = self.finding
        factor = plain(self.factor)
        beyond = f"more than {factor} times" if found.kind is Kind.SPIKE else f"less than 1/{factor} of"
        text = (
            f"{plain(found.seen)} {self.meter} from {_shown(self.window.start)} to {_shown(self.window.end)}, {beyond} "
            f"the {plain(found.expected)} that the same hours of {len(found.weekly)} weeks let expect"
        )
        if found.rolling_median is not None:
            text += f" (median of the {found.rolling_windows} windows before: {plain(found.rolling_median)})"
        parts = [f"{part.name}={part.value[:64]} ({part.share} %)" for part in (*self.groups, *self.attributes)]
        return f"{text}. What moved: {', '.join(parts)}." if parts else f"{text}."


def check_factor(factor: Decimal) -> None:
    """Check a factor.

    Raises:
        ValueError: not above 1, or above 1,000.
    """
    if not factor.is_finite() or not 1 < factor <= MAX_FACTOR:
        raise ValueError(f"is not above 1 and at most {MAX_FACTOR}")


def _shown(instant: datetime) -> str:
    return instant.isoformat(timespec="minutes").replace("+00:00", "Z")
