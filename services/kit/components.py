"""Whether what a process needs answers it: its database, Redis.

Each worker asks for itself and says what it found, also without a lease: leases are in the database, and a database
that is away is what this is for.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import redis
from opentelemetry import metrics
from opentelemetry.metrics import Observation

from services.kit.metrics import COMPONENT_UP

EVERY_SECONDS: Final = 15.0


class Components:
    """A loop of the worker: asks every 15 s, as often as metrics are exported."""

    name = "components"

    def __init__(
        self, service: str, answers: Mapping[str, Callable[[], bool]], *, every_seconds: float = EVERY_SECONDS
    ) -> None:
        """Prepare.

        Args:
            service: whose components.
            answers: say whether a component answers; by its name.
            every_seconds: the time between two questions.
        """
        self._answers = answers
        self._every = every_seconds
        self._up: dict[str, bool] = {}
        # A scope of its own for each service: the SDK keeps only the first callback of a name within a scope.
        COMPONENT_UP.observe(metrics.get_meter("services.kit.components", attributes={"service": service}), self._read)

    def run(self, stop: threading.Event) -> None:
        """Ask until stopped."""
        while not stop.is_set():
            for name, answers in self._answers.items():
                self._up[name] = answers()
            stop.wait(self._every)
        self._up = {}

    def _read(self) -> Iterable[Observation]:
        return [Observation(int(up), {"component": name}) for name, up in list(self._up.items())]


def redis_answers(client: redis.Redis) -> bool:
    """Say whether Redis can be asked now."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
