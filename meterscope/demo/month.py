"""The calendar month into which the logs are moved."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from meterscope.demo.errors import DemoFailed

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Month:
    """A calendar month of a time zone.

    Attributes:
        year: such as 2026.
        number: 1 to 12.
        zone: IANA name.
    """

    year: int
    number: int
    zone: str

    @classmethod
    def last_closed(cls, now: datetime, zone: str) -> "Month":
        """Return the last month that has ended in `zone` at `now`."""
        last_day = now.astimezone(ZoneInfo(zone)).replace(day=1) - _DAY
        return cls(last_day.year, last_day.month, zone)

    @classmethod
    def parse(cls, text: str, zone: str) -> "Month":
        """Read `2026-10`."""
        year, _, number = text.partition("-")
        return cls(int(year), int(number), zone)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

    @property
    def start(self) -> datetime:
        """Its first instant, UTC."""
        return datetime(self.year, self.number, 1, tzinfo=ZoneInfo(self.zone)).astimezone(UTC)

    @property
    def end(self) -> datetime:
        """The first instant behind it, UTC."""
        following = datetime(self.year, self.number, 1, tzinfo=ZoneInfo(self.zone)) + 31 * _DAY
        return following.replace(day=1).astimezone(UTC)

    def shift(self, first: datetime, last: datetime) -> timedelta:
        """Return the whole days by which a log from `first` to `last` moves into the month, on the same days of it.

        Raises:
            DemoFailed: the log does not fit into a month.
        """
        local = first.astimezone(ZoneInfo(self.zone))
        target = self.start.astimezone(ZoneInfo(self.zone))
        shift = timedelta(days=target.date().toordinal() - local.date().replace(day=1).toordinal())
        while last + shift >= self.end:
            shift -= _DAY
        if first + shift < self.start:
            raise DemoFailed(f"a log from {first} to {last} does not fit into {self}")
        return shift
