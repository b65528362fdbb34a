"""Events on their way into the tables."""

from typing import NamedTuple

from services.usage.domain.event import Event


class Placed(NamedTuple):
    """An event with its customer's number (as `wire.int8`), empty when it must be held, then for `reason`.

    `span_id` is that of the span that takes it in (8 bytes, or empty); `sampled` says that its trace is kept.
    """

    event: Event
    customer: bytes
    reason: str
    span_id: bytes
    sampled: bool
