"""The errors of usage."""

from services.kit.errors import AlreadyExists, FailedPrecondition, NotFound, Unavailable


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
