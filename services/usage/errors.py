"""The errors of usage."""

from datetime import datetime
from decimal import Decimal

from services.kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from services.kit.money import plain
from services.usage.domain.correction import Correction
from services.usage.domain.limit import Standing


class CustomerNotFound(NotFound):
    """Billing has not told usage of such a customer."""

    reason = "CUSTOMER_NOT_FOUND"

    def __init__(self, customer_id: str) -> None:
        super().__init__(
            f"no customer {customer_id!r}: create it in billing first", metadata={"customer_id": customer_id}
        )


class MeterNotFound(NotFound):
    """No such meter."""

    reason = "METER_NOT_FOUND"

    def __init__(self, meter_id: str) -> None:
        super().__init__(f"no meter {meter_id!r}: create it first", metadata={"meter": meter_id})


class EventNotFound(NotFound):
    """The customer has no such event."""

    reason = "EVENT_NOT_FOUND"

    def __init__(self, customer_id: str, source: str, event_id: str) -> None:
        super().__init__(
            f"customer {customer_id} has no event {event_id!r} of source {source!r}",
            metadata={"customer_id": customer_id, "source": source, "event_id": event_id},
        )


class EventCorrected(FailedPrecondition):
    """The event was corrected before, in another way."""

    reason = "EVENT_ALREADY_CORRECTED"

    def __init__(self, source: str, event_id: str, correction: Correction) -> None:
        other = correction.superseded_by
        what = f"amended by event {other.id!r} of source {other.source!r}; correct that one" if other else "cancelled"
        super().__init__(
            f"event {event_id!r} of source {source!r} is {what}",
            metadata={"source": source, "event_id": event_id, "state": correction.state.value},
        )


class SupersedingEventExists(FailedPrecondition):
    """What is to supersede an event is stored already, and counts by itself."""

    reason = "SUPERSEDING_EVENT_EXISTS"

    def __init__(self, source: str, event_id: str) -> None:
        super().__init__(
            f"event.id: an event {event_id!r} of source {source!r} is stored already; send the superseding event under a"
            " new id, or cancel the wrong one if the stored one is right",
            metadata={"source": source, "event_id": event_id},
        )


class UnknownSupersedingType(FailedPrecondition):
    """No meter counts the type of what is to supersede an event."""

    reason = "SUPERSEDING_EVENT_UNKNOWN_TYPE"

    def __init__(self, event_type: str) -> None:
        super().__init__(
            f"event.type: no meter counts events of type {event_type!r} yet; create one first",
            metadata={"event_type": event_type},
        )


class TooOldToCorrect(FailedPrecondition):
    """The event is older than raw events are kept: its totals cannot be made anew."""

    reason = "EVENT_TOO_OLD_TO_CORRECT"

    def __init__(self, source: str, event_id: str, time: datetime, floor: datetime) -> None:
        super().__init__(
            f"event {event_id!r} of source {source!r} is of {time.isoformat()}, and raw events are kept from"
            f" {floor.isoformat()} on; correct the invoice with a credit note instead",
            metadata={"source": source, "event_id": event_id, "kept_from": floor.isoformat()},
        )


class RawEventsGone(FailedPrecondition):
    """Raw events of a range are kept no longer; what they add up to is."""

    reason = "RAW_EVENTS_GONE"

    def __init__(self, field: str, time: datetime, floor: datetime) -> None:
        super().__init__(
            f"{field}: raw events before {floor.isoformat()} are kept no longer, {time.isoformat()} was asked for; list"
            " from then on, or ask for totals (QueryUsage) and sealed totals, which stay",
            metadata={"kept_from": floor.isoformat()},
        )


class RawEventsNeeded(FailedPrecondition):
    """Usage that is cut, or counted, where only totals are left."""

    reason = "RAW_EVENTS_GONE"

    def __init__(self, instant: datetime, floor: datetime) -> None:
        super().__init__(
            f"{instant.isoformat()} needs raw events, which are kept from {floor.isoformat()} on; ask from there on, or"
            " in whole quarters of an hour (UTC)",
            metadata={"time": instant.isoformat(), "kept_from": floor.isoformat()},
        )


class RecountRunning(FailedPrecondition):
    """A meter is being recounted by what it counted before."""

    reason = "RECOUNT_RUNNING"

    def __init__(self, meter_id: str) -> None:
        super().__init__(
            f"meter {meter_id!r} is being recounted; set count_from when its recount is DONE",
            metadata={"meter_id": meter_id},
        )


class MeterArchived(FailedPrecondition):
    """The meter counts nothing more."""

    reason = "METER_ARCHIVED"

    def __init__(self, meter_id: str) -> None:
        super().__init__(
            f"meter {meter_id!r} is archived: its totals stay as they are; create another meter",
            metadata={"meter": meter_id},
        )


class MeterExists(AlreadyExists):
    """The meter's id is taken by another definition."""

    reason = "METER_EXISTS"

    def __init__(self, meter_id: str) -> None:
        super().__init__(
            f"meter {meter_id!r} exists with another definition: choose another id", metadata={"meter": meter_id}
        )


class CustomerKeyTaken(FailedPrecondition):
    """A key belongs to another customer until that one gives it up."""

    reason = "CUSTOMER_KEY_TAKEN"

    def __init__(self, key: str) -> None:
        super().__init__(f"customer key {key!r} belongs to another customer", metadata={"customer_key": key})


class LimitReached(ResourceExhausted):
    """A hard limit refuses what was asked."""

    reason = "LIMIT_REACHED"

    def __init__(self, customer_id: str, asked: str, standing: Standing) -> None:
        used, reserved, limit = (
            plain(each or Decimal(0)) for each in (standing.used, standing.reserved, standing.limit)
        )
        reset = standing.period.end.isoformat()
        super().__init__(
            f"{asked} {standing.meter} are not left to {customer_id}: {used} used and {reserved} reserved of {limit}; "
            f"ask for less, or again from {reset} on",
            metadata={
                "customer_id": customer_id,
                "meter": standing.meter,
                "used": used,
                "reserved": reserved,
                "limit": limit,
                "reset_time": reset,
            },
        )


class ReservationNotFound(NotFound):
    """The customer has no such reservation."""

    reason = "RESERVATION_NOT_FOUND"

    def __init__(self, customer_id: str, reservation_id: str) -> None:
        super().__init__(
            f"customer {customer_id} has no reservation {reservation_id!r}",
            metadata={"customer_id": customer_id, "reservation_id": reservation_id},
        )


class ReservationEnded(FailedPrecondition):
    """The reservation is not open any more. The reason says why."""

    def __init__(self, reservation_id: str, reason: str, why: str) -> None:
        super().__init__(
            f"reservation {reservation_id} {why}", reason=reason, metadata={"reservation_id": reservation_id}
        )


class RollupBehind(Unavailable):
    """The rollup did not come far enough in time."""

    reason = "ROLLUP_BEHIND"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the rollup did not catch up within {seconds:g} s; send the same request again")


class DatabaseRestored(Unavailable):
    """The database was restored into another cluster, whose transaction ids begin anew."""

    reason = "DATABASE_RESTORED"

    def __init__(self) -> None:
        super().__init__("the database was restored; usage takes events again once the worker has taken note")


class ReportNotFound(NotFound):
    """The customer has no such report, or it is not kept any more."""

    reason = "REPORT_NOT_FOUND"

    def __init__(self, customer_id: str, report_id: str) -> None:
        super().__init__(
            f"customer {customer_id} has no report {report_id!r}; ask for its range again",
            metadata={"customer_id": customer_id, "report_id": report_id},
        )


class TooManyReports(ResourceExhausted):
    """As many of the customer's reports are being made as may be at a time."""

    reason = "TOO_MANY_REPORTS"

    def __init__(self, customer_id: str, most: int) -> None:
        super().__init__(
            f"{most} reports on {customer_id} are being made, as many as may be; ask again when one of them is there",
            metadata={"customer_id": customer_id, "most": str(most)},
        )
