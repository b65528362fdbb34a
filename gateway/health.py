"""What `/health`, `/health/ready` and `/health/live` answer."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.backends import Backends, ServiceHealth
from services.kit.config import KitSettings

_CHECK_SECONDS: Final = 2.0
_READY_AGE_SECONDS: Final = 1.0
_DETAIL_AGE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Observation:
    """The services' health at one instant.

    Attributes:
        as_of: when they were asked.
        taken: the same on the monotonic clock, s.
        services: what each said.
    """

    as_of: datetime
    taken: float
    services: dict[str, ServiceHealth]

    @property
    def is_healthy(self) -> bool:
        """Whether every service serves."""
        return all(service.is_serving for service in self.services.values())


class Health:
    """Asks the services, and remembers their answers for a moment: callers cannot make it a burden."""

    def __init__(self, settings: KitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._started = clock()
        self._last: Observation | None = None
        self._asking = asyncio.Lock()

    async def details(self, request: Request) -> Response:
        """`/health`: everything. Good news is kept for 30 s, bad news for 1 s; 503 when a service is away."""
        seen = await self._observe(request.state.backends, _DETAIL_AGE_SECONDS)
        content = {
            "status": "ok" if seen.is_healthy else "degraded",
            "timestamp": _rfc3339(datetime.now(UTC)),
            "as_of": _rfc3339(seen.as_of),
            "version": self._settings.version,
            "environment": self._settings.environment,
            "uptime_seconds": round(self._clock() - self._started, 3),
            "services": {
                name: {"status": health.status, "response_ms": health.milliseconds}
                for name, health in seen.services.items()
            },
        }
        return _answer(content, is_good=seen.is_healthy)

    async def ready(self, request: Request) -> Response:
        """`/health/ready`: whether every service can be reached; at most 1 s old."""
        seen = await self._observe(request.state.backends, _READY_AGE_SECONDS)
        waiting_for = [name for name, health in seen.services.items() if not health.is_serving]
        content = {
            "status": "ready" if seen.is_healthy else "not_ready",
            "as_of": _rfc3339(seen.as_of),
            "waiting_for": waiting_for,
        }
        return _answer(content, is_good=seen.is_healthy)

    async def live(self, _request: Request) -> Response:
        """`/health/live`: whether the gateway itself answers."""
        return _answer({"status": "alive"}, is_good=True)

    async def _observe(self, backends: Backends, max_age: float) -> Observation:
        async with self._asking:
            last = self._last
            age = max_age if last is not None and last.is_healthy else _READY_AGE_SECONDS
            if last is None or self._clock() - last.taken > age:
                answers = await asyncio.gather(
                    *(backends.health(name, seconds=_CHECK_SECONDS) for name in backends.names)
                )
                services = dict(zip(backends.names, answers, strict=True))
                last = self._last = Observation(datetime.now(UTC), self._clock(), services)
            return last


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(content: dict[str, Any], *, is_good: bool) -> Response:
    return Response(
        orjson.dumps(content),
        status_code=HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )
