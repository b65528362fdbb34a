"""The client's errors.

MeterscopeError
├── ClientClosed    the client was closed before
├── QueueFull       the queue stayed full for as long as the caller would wait
│   └── SpoolFull   the server is away and the spool has reached its bound
├── SpoolBusy       another process has the spool's folder
├── SpoolDamaged    a spool file is not as it was written
├── CallFailed      a question was not answered
└── Undelivered     events that the server has not acknowledged, handed back
"""

from collections.abc import Sequence

from meterscope.client.event import Event, Result


class MeterscopeError(Exception):
    """The root of what the client raises on its own account."""


class ClientClosed(MeterscopeError):
    """The client was closed; open another one."""


class QueueFull(MeterscopeError):
    """The queue stayed full: the server is slower than the caller, or away. The event was not taken."""


class SpoolFull(QueueFull):
    """The server is away and the spool holds as many bytes as it may. The event was not taken."""


class SpoolBusy(MeterscopeError):
    """Another client has the spool's folder: one folder, one client at a time."""


class SpoolDamaged(MeterscopeError):
    """A spool file holds something else than what was written. Nothing of it was changed."""


class CallFailed(MeterscopeError):
    """A call that is no delivery failed.

    Attributes:
        code: the gRPC status' name, such as `NOT_FOUND`.
        reason: an UPPER_SNAKE_CASE word for programs, such as `LIMIT_REACHED`; empty if the server gave none.
        message: for people.
        metadata: further facts for programs.
        retry_after: the seconds after which the server asks to come again; 0 if it does not.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        reason: str = "",
        metadata: dict[str, str] | None = None,
        retry_after: float = 0,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.retry_after = retry_after


class Undelivered(MeterscopeError):
    """The server has not acknowledged these events. Some may be stored all the same: sending them again is safe.

    Attributes:
        events: the events, in the order in which they were given; hand them to `Client.ingest` to try again.
        results: results that did come in, of events that are not in `events` (`Client.ingest` only).
        is_refused: whether the server refused them, so that trying again as they are is of no use; else it was away.
        code: the gRPC status' name if it refused them, such as `UNAUTHENTICATED`; else empty.
    """

    def __init__(
        self,
        events: Sequence[Event],
        reason: str,
        *,
        results: Sequence[Result] = (),
        is_refused: bool = False,
        code: str = "",
    ) -> None:
        super().__init__(f"{len(events)} event{'' if len(events) == 1 else 's'} not acknowledged: {reason}")
        self.events = tuple(events)
        self.results = tuple(results)
        self.reason = reason
        self.is_refused = is_refused
        self.code = code
