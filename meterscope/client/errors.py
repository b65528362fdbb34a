"""The client's errors.

MeterscopeError
├── ClientClosed   the client was closed before
├── QueueFull      the queue stayed full for as long as the caller would wait
└── Undelivered    events that the server has not acknowledged, handed back
"""

from collections.abc import Sequence

from meterscope.client.event import Event, Result


class MeterscopeError(Exception):
    """The root of what the client raises on its own account."""


class ClientClosed(MeterscopeError):
    """The client was closed; open another one."""


class QueueFull(MeterscopeError):
    """The queue stayed full: the server is slower than the caller, or away. The event was not taken."""


class Undelivered(MeterscopeError):
    """The server has not acknowledged these events. Some may be stored all the same: sending them again is safe.

    Attributes:
        events: the events, in the order in which they were given; hand them to `Client.ingest` to try again.
        results: results that did come in, of events that are not in `events` (`Client.ingest` only).
    """

    def __init__(self, events: Sequence[Event], reason: str, *, results: Sequence[Result] = ()) -> None:
        super().__init__(f"{len(events)} event{'' if len(events) == 1 else 's'} not acknowledged: {reason}")
        self.events = tuple(events)
        self.results = tuple(results)
        self.reason = reason
