"""The live counters in Redis: period totals as the rollup last wrote them, for limit checks to read.

`usage:{customer}:{YYYYMM}` is a hash by the month in which the period began: `requests` is the total for people,
`requests@1761955200` that of the period which began at that second, with the rollup's place in front. A write with an
older place changes nothing: a rollup that was paused cannot turn a counter back.

`usage:{customer}:reserved` is a hash of what reservations set aside, by meter, with the version of it in front.

`usage:epoch` says whether the counters are complete: the server run in which they were is written last when they are
filled, and only if nothing emptied the server meanwhile. Without it the database answers.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple, cast
from uuid import uuid4

import redis

from services.kit.money import plain
from services.usage.domain.instant import MICROSECONDS, from_us, to_us
from services.usage.metrics import RedisMetrics, Server

_EPOCH: Final = "usage:epoch"
_CHUNK: Final = 500
_KEPT: Final = timedelta(days=400)
_KEPT_AT_LEAST: Final = timedelta(days=35)
_PLACE_WIDTH: Final = 31
_ZERO: Final = Decimal(0)
_SCAN: Final = 1_000
# After a failure the database answers at once for this long.
_PAUSE_SECONDS: Final = 1.0

# The epoch, then counters; for each of these its field. A pipeline of as many commands takes redis-py twice the time.
_READ: Final = """
local found = redis.call('HMGET', KEYS[1], 'run', 'as_of')
for i = 2, #KEYS do
  found[i + 1] = redis.call('HGET', KEYS[i], ARGV[i - 1])
end
return found
"""

# For each key: meter, period, value, expiry (unix s).
_PUBLISH: Final = """
for i, key in ipairs(KEYS) do
  local meter, period, value, expiry = ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1]
  local field = meter .. '@' .. period
  local held = redis.call('HGET', key, field)
  if not held or string.sub(held, 1, #ARGV[1]) < ARGV[1] then
    if redis.call('HSET', key, field, ARGV[1] .. ' ' .. value, meter, value) > 0 then
      redis.call('EXPIREAT', key, expiry)
    end
  end
end
"""

# For each key: meter, place and quantity, expiry (unix s).
_RESERVE: Final = """
for i, key in ipairs(KEYS) do
  local meter, value, expiry = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local held, width = redis.call('HGET', key, meter), tonumber(ARGV[1])
  if not held or string.sub(held, 1, width) < string.sub(value, 1, width) then
    redis.call('HSET', key, meter, value)
    redis.call('EXPIREAT', key, expiry)
  end
end
"""

# The mark of the filling that ends, and the server run.
_COMPLETE: Final = """
if redis.call('HGET', KEYS[1], 'filling') ~= ARGV[1] then
  return 0
end
redis.call('HDEL', KEYS[1], 'filling')
redis.call('HSET', KEYS[1], 'run', ARGV[2])
return 1
"""

_log = logging.getLogger(__name__)


class CountersAway(Exception):
    """Redis does not answer, or not in time."""


@dataclass(frozen=True)
class Counter:
    """A period total to write. `month` is YYYYMM, of the period's start in the customer's time zone."""

    customer_id: str
    month: str
    meter: str
    period_start: datetime
    value: Decimal


@dataclass(frozen=True)
class Quota:
    """What reservations set aside of a customer's meter, at a version of a generation."""

    customer_id: str
    meter: str
    generation: int
    version: int
    quantity: Decimal


class Asked(NamedTuple):
    """Which counter is asked for; see `Counter`."""

    customer_id: str
    month: str
    meter: str
    period_start: datetime


class Reading(NamedTuple):
    """A period total that was read: every event acknowledged before `as_of` is in it. `reserved` is set aside."""

    value: Decimal
    reserved: Decimal
    as_of: datetime


class Counters:
    """Reads and writes the counters."""

    def __init__(self, url: str, metrics: RedisMetrics, *, timeout: timedelta) -> None:
        """Prepare; the first command connects.

        Args:
            url: of Redis or Valkey.
            metrics: gets the durations.
            timeout: how long one command may take.
        """
        seconds = timeout.total_seconds()
        self._redis = redis.Redis.from_url(
            url, socket_timeout=seconds, socket_connect_timeout=seconds, decode_responses=True
        )
        self._read = self._redis.register_script(_READ)
        self._publish = self._redis.register_script(_PUBLISH)
        self._reserve = self._redis.register_script(_RESERVE)
        self._complete = self._redis.register_script(_COMPLETE)
        self._metrics = metrics
        self._lock = threading.Lock()
        # When it is worth trying again after a failure; 0 while all is well.
        self._away_until = 0.0

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def worth_asking(self) -> bool:
        """Say whether `read` may be tried: after a failure by one call a second, so that the others wait for nothing."""
        if not self._away_until:
            return True
        now = time.monotonic()
        with self._lock:
            if now < self._away_until:
                return False
            self._away_until = now + _PAUSE_SECONDS
        return True

    def read(self, asked: Sequence[Asked]) -> list[Reading] | None:
        """Return counters, in one round trip; None when Redis does not answer in time or they are not complete."""
        keys: list[str] = [_EPOCH]
        fields: list[str] = []
        for customer_id, month, meter, period_start in asked:
            keys += (_key(customer_id, month), _reserved_key(customer_id))
            fields += (f"{meter}@{_seconds(period_start)}", meter)
        try:
            with self._measured("hget"):
                run, as_of, *held = self._read(keys, fields)
        except CountersAway:
            self._away_until = time.monotonic() + _PAUSE_SECONDS
            return None
        self._away_until = 0.0
        if not run or not as_of:
            return None
        at = from_us(int(as_of))
        return [
            Reading(_value(used), _value(reserved), at) for used, reserved in zip(held[::2], held[1::2], strict=True)
        ]

    def server(self) -> Server:
        """Return what the server says of itself. The keys are counted by going through all of them, bit by bit.

        Raises:
            CountersAway: Redis does not answer.
        """
        with self._measured("info"):
            info = self._redis.info()
        return Server(int(info["used_memory"]), int(info["connected_clients"]), self._count_keys())

    def server_run(self) -> str:
        """Return what names this run of the server: another one after a restart.

        Raises:
            CountersAway: Redis does not answer.
        """
        with self._measured("info"):
            info = self._redis.info("server")
        return str(info["run_id"])

    def complete_in(self) -> str:
        """Return the server run in which the counters were filled, empty when they are not.

        Raises:
            CountersAway: Redis does not answer.
        """
        with self._measured("hget"):
            return cast("str | None", self._redis.hget(_EPOCH, "run")) or ""

    def begin_filling(self) -> str:
        """Have the database answer until `end_filling`, and return the mark that it needs.

        Raises:
            CountersAway: Redis does not answer.
        """
        mark = uuid4().hex
        with self._measured("del"), self._redis.pipeline() as pipe:
            pipe.delete(_EPOCH)
            pipe.hset(_EPOCH, "filling", mark)
            pipe.execute()
        return mark

    def end_filling(self, mark: str, run: str) -> None:
        """Have the counters answer: they are complete in this run of the server.

        Raises:
            CountersAway: Redis does not answer, or was emptied, or filled by another process, since the mark was made.
        """
        with self._measured("hset"):
            completed = self._complete([_EPOCH], [mark, run])
        if not completed:
            raise CountersAway("the counters were emptied while they were filled")

    def write(self, counters: Sequence[Counter], *, generation: int, last: int, as_of: datetime | None) -> None:
        """Write counters as they are at a place of the rollup; repeated, late or out of order it does no harm.

        Args:
            counters: what moved.
            generation: of the place.
            last: the place.
            as_of: every event acknowledged before it is counted; None if that is not known.

        Raises:
            CountersAway: Redis does not answer; some may be written.
        """
        place = _place(generation, last)
        for start in range(0, len(counters), _CHUNK):
            chunk = counters[start : start + _CHUNK]
            arguments = [place]
            for each in chunk:
                arguments += [each.meter, _seconds(each.period_start), plain(each.value), _expiry(each.period_start)]
            with self._measured("hset"):
                self._publish([_key(each.customer_id, each.month) for each in chunk], arguments)
        if as_of is not None:
            with self._measured("hset"):
                self._redis.hset(_EPOCH, "as_of", str(to_us(as_of)))

    def write_reserved(self, quotas: Sequence[Quota]) -> None:
        """Write what reservations set aside; repeated, late or out of order it does no harm.

        Raises:
            CountersAway: Redis does not answer; some may be written.
        """
        for start in range(0, len(quotas), _CHUNK):
            chunk = quotas[start : start + _CHUNK]
            arguments = [str(_PLACE_WIDTH)]
            for each in chunk:
                value = f"{_place(each.generation, each.version)} {plain(each.quantity)}"
                arguments += [each.meter, value, str(int(time.time() + _KEPT.total_seconds()))]
            with self._measured("hset"):
                self._reserve([_reserved_key(each.customer_id) for each in chunk], arguments)

    def _count_keys(self) -> int:
        cursor, count = 0, 0
        while True:
            with self._measured("scan"):
                cursor, keys = self._redis.scan(cursor, match="usage:*", count=_SCAN)
            count += len(keys)
            if not cursor:
                return count

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise CountersAway(str(error)) from error
        finally:
            self._metrics.took(operation, time.perf_counter() - started)


def _key(customer_id: str, month: str) -> str:
    return f"usage:{customer_id}:{month}"


def _reserved_key(customer_id: str) -> str:
    return f"usage:{customer_id}:reserved"


def _place(generation: int, number: int) -> str:
    return f"{generation:010d}.{number:020d}"


def _value(held: str | None) -> Decimal:
    """Return the number behind the place; 0 where nothing is held."""
    return Decimal(held[_PLACE_WIDTH + 1 :]) if held else _ZERO


def _seconds(instant: datetime) -> str:
    return str(to_us(instant) // MICROSECONDS)


def _expiry(period_start: datetime) -> str:
    return str(int(max(period_start.timestamp() + _KEPT.total_seconds(), time.time() + _KEPT_AT_LEAST.total_seconds())))
