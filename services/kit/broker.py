"""Dramatiq over Redis: carries outbox ids to worker threads, and nothing else.

No middleware, so no retries (Dramatiq's default would be twenty): the outbox is the only retry. Traces, metrics,
errors and time limits are the runner's, which alone knows how a job ended. A lost or doubled message does no harm: a
row starts only while it is handed out, and a row whose message was lost is handed out again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import dramatiq
import redis
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import Middleware
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.kit import logs
from services.kit.outbox import Jobs

# How long a consumer sleeps when it was not woken: only another process' messages wait so long.
_IDLE_SECONDS: Final = 0.5
_SOCKET_SECONDS: Final = 5

_log = logging.getLogger(__name__)


class JobBroker(RedisBroker):
    """The broker of one service: one queue, named after the service, in a key space of its own."""

    def __init__(self, service: str, redis_url: str, jobs: Jobs, run: Callable[[str], None]) -> None:
        """Declare an actor for each job.

        Args:
            service: names the queue and the key space.
            redis_url: `redis://host:port/db`.
            jobs: by name.
            run: runs the outbox row of an id.
        """
        client = redis.Redis.from_url(
            redis_url,
            socket_timeout=_SOCKET_SECONDS,
            socket_connect_timeout=_SOCKET_SECONDS,
            # Once more at once, for pooled connections that a restart has cut; who asks bears the rest.
            retry=Retry(NoBackoff(), 1),
        )
        super().__init__(middleware=[Uncaught()], namespace=f"meterscope:{service}", client=client)  # type: ignore[no-untyped-call]
        self.queue = service
        self._wakes: list[threading.Event] = []
        for spec in jobs:
            options = {"max_retries": 0}
            dramatiq.Actor(run, broker=self, actor_name=spec.name, queue_name=service, priority=0, options=options)

    def send(self, job: str, row_id: str) -> None:
        """Queue a row.

        Raises:
            redis.RedisError: it may or may not be queued.
        """
        self.enqueue(self.get_actor(job).message(row_id))
        self.wake()

    def waiting(self) -> int:
        """Return how many messages no worker has fetched yet."""
        return int(self.client.llen(f"{self.namespace}:{self.queue}"))

    def wake(self) -> None:
        """Have this process' consumers look at once."""
        for event in self._wakes:
            event.set()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:  # noqa: ARG002 - Dramatiq's signature
        """Give a consumer that waits for `wake` instead of sleeping."""
        if queue_name != self.queue:
            return _NoMessages()
        wake = threading.Event()
        self._wakes.append(wake)
        return _WakingConsumer(super().consume(queue_name, prefetch, timeout=0), wake)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class Uncaught(Middleware):
    """Logs what a message failed by: a job's own errors end with the runner, so that these are faults of ours."""

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Log it, if there is one."""
        del broker, result
        if exception is not None:
            what = {"job": message.actor_name, "outbox_id": message.args[0]}
            logs.uncaught(exception, "worker", "a job's message failed", **what)


class _NoMessages(Consumer):
    """Of Dramatiq's delay queue, which cannot be switched off and stays empty: delays are the outbox's."""

    def __next__(self) -> MessageProxy | None:
        time.sleep(_IDLE_SECONDS)
        return None


class _WakingConsumer(Consumer):
    """Dramatiq's Redis consumer sleeps up to a second when it finds nothing; this one is woken."""

    def __init__(self, inner: Consumer, wake: threading.Event) -> None:
        self._inner = inner
        self._wake = wake

    def __next__(self) -> MessageProxy | None:
        message = next(self._inner)
        if message is None:
            self._wake.wait(_IDLE_SECONDS)
            self._wake.clear()
        return message

    def ack(self, message: MessageProxy) -> None:
        self._settle(self._inner.ack, message)

    def nack(self, message: MessageProxy) -> None:
        self._settle(self._inner.nack, message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        try:
            self._inner.requeue(messages)
        except redis.RedisError as error:
            _log.warning("messages could not be given back; their leases run out", extra={"error": str(error)})

    def close(self) -> None:
        self._inner.close()

    def _settle(self, settle: Callable[[MessageProxy], Any], message: MessageProxy) -> None:
        try:
            settle(message)
        except BrokerConnectionError as error:
            # The row knows how the job ended, so the message no longer matters; Dramatiq would block the thread.
            _log.warning("a message could not be acknowledged", extra={"job": message.actor_name, "error": str(error)})
        # A place has become free for the next message.
        self._wake.set()
