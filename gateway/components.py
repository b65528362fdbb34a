"""Whether the services answer the gateway, for `billing_component_up`."""

import asyncio
from collections.abc import Iterable
from typing import Final

from opentelemetry import metrics
from opentelemetry.metrics import Meter, Observation

from gateway.backends import Backends
from services.kit.metrics import COMPONENT_UP

_EVERY_SECONDS: Final = 15.0
_ANSWER_SECONDS: Final = 5.0


class Components:
    """Asks every service for its health every 15 s, as often as metrics are exported."""

    def __init__(
        self, backends: Backends, *, every_seconds: float = _EVERY_SECONDS, meter: Meter | None = None
    ) -> None:
        """Prepare; nothing is asked before `run`.

        Args:
            backends: the services.
            every_seconds: the time between two questions.
            meter: where the gauge is made; the process's own by default.
        """
        self._backends = backends
        self._every = every_seconds
        self._up: dict[str, bool] = {}
        COMPONENT_UP.observe(meter or metrics.get_meter("gateway.components"), self._read)

    async def run(self) -> None:
        """Ask until cancelled."""
        names = self._backends.names
        try:
            while True:
                found = await asyncio.gather(*(self._backends.health(name, seconds=_ANSWER_SECONDS) for name in names))
                self._up = {name: health.is_serving for name, health in zip(names, found, strict=True)}
                await asyncio.sleep(self._every)
        finally:
            self._up = {}

    def _read(self) -> Iterable[Observation]:
        return [Observation(int(up), {"component": name}) for name, up in self._up.items()]
