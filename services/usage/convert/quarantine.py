"""Held events."""

from meterscope.usage.v1 import event_service_pb2 as pb
from services.usage.convert.events import held_event
from services.usage.convert.fields import text, timestamp
from services.usage.domain.instant import from_us
from services.usage.domain.verdict import Outcome
from services.usage.store.events import StoredEvent, quantities
from services.usage.store.quarantine import Filter, Held
from services.usage.usecases.quarantine import Page, Replayed


def chosen(customer_key: str, reason: str) -> Filter:
    """Decode which held events are meant.

    Raises:
        InvalidArgument: a text that is none.
    """
    return Filter(text(customer_key, "customer_key", optional=True), text(reason, "reason", optional=True))


def page(found: Page) -> pb.ListQuarantinedEventsResponse:
    """Encode a page."""
    return pb.ListQuarantinedEventsResponse(
        quarantined_events=[_held(held) for held in found.held],
        next_page_token=found.next_token,
        total_size=found.total,
    )


def replayed(result: Replayed) -> pb.ReplayQuarantinedEventsResponse:
    """Encode what became of held events."""
    outcomes = result.outcomes
    return pb.ReplayQuarantinedEventsResponse(
        accepted=outcomes[Outcome.ACCEPTED],
        duplicate=outcomes[Outcome.DUPLICATE],
        conflict=outcomes[Outcome.CONFLICT],
        quarantined=result.held,
        rejected=outcomes[Outcome.REJECTED],
    )


def _held(held: Held) -> pb.QuarantinedEvent:
    event = held.event
    shown = StoredEvent(
        id=event.id.decode(),
        source=event.source.decode(),
        type=event.type.decode(),
        customer_id=event.customer_id,
        customer_key=event.customer_key,
        time=from_us(event.time),
        quantities=quantities(event.quantities.decode()),
        attributes=event.attributes.decode(),
        trace_id=event.trace_id.hex(),
    )
    return pb.QuarantinedEvent(event=held_event(shown), reason=held.reason, receive_time=timestamp(held.key.received))
