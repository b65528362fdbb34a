"""What tests of the usage service hold in their hands: its client, and the alerts service that it calls."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
from eventually import eventually
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import decimal_pb2, interval_pb2
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from meterscope.alerts.v1 import alert_service_pb2, alert_service_pb2_grpc
from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import event_service_pb2_grpc as events_grpc
from meterscope.usage.v1 import limit_service_pb2 as limits_pb
from meterscope.usage.v1 import limit_service_pb2_grpc as limits_grpc
from meterscope.usage.v1 import meter_service_pb2 as meters_pb
from meterscope.usage.v1 import meter_service_pb2_grpc as meters_grpc
from meterscope.usage.v1 import usage_service_pb2 as usage_pb
from meterscope.usage.v1 import usage_service_pb2_grpc as usage_grpc
from services.kit.ids import new_id

SOURCE = "tests"
TYPE = "http.request"

_numbers = itertools.count(1)


@contextmanager
def caller_in(trace_id: str) -> Iterator[None]:
    """Make the calls in the block as a caller does who is in a trace of this id."""
    span = SpanContext(
        int(trace_id, 16), 0x00F067AA0BA902B7, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    with trace.use_span(NonRecordingSpan(span)):
        yield


@dataclass
class Alerts(alert_service_pb2_grpc.AlertServiceServicer):
    """The edge to alerts: keeps what it is told, once a request id, with the trace that it came in."""

    raised: dict[str, alert_service_pb2.RaiseSignalRequest] = field(default_factory=dict)
    traces: dict[str, str] = field(default_factory=dict)

    def RaiseSignal(
        self, request: alert_service_pb2.RaiseSignalRequest, context: grpc.ServicerContext
    ) -> alert_service_pb2.Alert:
        self.raised[request.request_id] = request
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        self.traces[request.request_id] = headers.get("traceparent", "")
        return alert_service_pb2.Alert(fingerprint=request.fingerprint)

    def thresholds(self, customer: str) -> list[tuple[str, int]]:
        """(meter, threshold) of a customer's signals, in order."""
        mine = [request for request in self.raised.values() if request.customer_id == customer]
        return sorted((str(request.data["meter"]), int(request.data["threshold"])) for request in mine)  # type: ignore[arg-type]

    def trace_ids(self, customer: str) -> set[str]:
        mine = [key for key, request in self.raised.items() if request.customer_id == customer]
        return {self.traces[key].split("-")[1] for key in mine}


def timestamp(instant: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(instant)
    return message


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def event(
    customer: str,
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    type: str = TYPE,  # noqa: A002 - the field's name
    time: datetime | None = None,
    quantities: Mapping[str, str] | None = None,
    attributes: Mapping[str, str] | None = None,
    source: str = SOURCE,
    trace_id: str = "",
) -> events_pb.Event:
    """An event of a customer, by id if it begins with `cus_`, else by key."""
    message = events_pb.Event(
        id=f"e{next(_numbers)}" if id is None else id,
        source=source,
        type=type,
        time=timestamp(time or datetime.now(UTC)),
        attributes=attributes or {},
        trace_id=trace_id,
    )
    if customer.startswith("cus_"):
        message.customer_id = customer
    else:
        message.customer_key = customer
    for name, number in (quantities or {}).items():
        message.quantities[name].value = number
    return message


@dataclass(frozen=True)
class Client:
    """Calls the service as producers, billing and the gateway do."""

    events: events_grpc.EventServiceStub
    meters: meters_grpc.MeterServiceStub
    usage: usage_grpc.UsageServiceStub
    limits: limits_grpc.LimitServiceStub

    @classmethod
    def on(cls, channel: grpc.Channel) -> "Client":
        return cls(
            events_grpc.EventServiceStub(channel),
            meters_grpc.MeterServiceStub(channel),
            usage_grpc.UsageServiceStub(channel),
            limits_grpc.LimitServiceStub(channel),
        )

    def ingest(self, *events: events_pb.Event) -> events_pb.IngestEventsResponse:
        return self.events.IngestEvents(events_pb.IngestEventsRequest(events=events), timeout=30)

    def outcomes(self, *events: events_pb.Event) -> list[str]:
        names = events_pb.Outcome.Name
        return [names(result.outcome).removeprefix("OUTCOME_") for result in self.ingest(*events).results]

    def create_meter(
        self, meter: str, *, quantity: str = "", event_type: str = TYPE, unit: str = ""
    ) -> meters_pb.Meter:
        aggregation = meters_pb.AGGREGATION_SUM if quantity else meters_pb.AGGREGATION_COUNT
        message = meters_pb.Meter(
            id=meter, event_type=event_type, aggregation=aggregation, quantity=quantity, unit=unit
        )
        return self.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=message))

    def put_customer(
        self,
        customer: str | None = None,
        *,
        keys: Sequence[str] = (),
        revision: int = 1,
        time_zone: str = "UTC",
        periods: Sequence[tuple[datetime, datetime]] = (),
        limits: Mapping[str, str] | None = None,
        kind: limits_pb.LimitKind.ValueType = limits_pb.LIMIT_KIND_HARD,
        thresholds: Sequence[int] = (),
        has_plan: bool = True,
        request_id: str | None = None,
    ) -> str:
        """Tell usage of a customer, a new one unless it is named; return its id."""
        customer = customer or new_id("cus")
        self.limits.PutEntitlements(
            limits_pb.PutEntitlementsRequest(
                customer_id=customer,
                customer_keys=keys,
                revision=revision,
                time_zone=time_zone,
                periods=[
                    interval_pb2.Interval(start_time=timestamp(start), end_time=timestamp(end))
                    for start, end in periods
                ],
                limits=[
                    limits_pb.Limit(
                        meter=meter, limit=decimal_pb2.Decimal(value=amount), kind=kind, thresholds=thresholds
                    )
                    for meter, amount in (limits or {}).items()
                ],
                has_plan=has_plan,
                request_id=request_id or f"put-{next(_numbers)}",
            )
        )
        return customer

    def query(
        self,
        customer: str,
        meter: str,
        start: datetime,
        end: datetime,
        *,
        window: usage_pb.Window.ValueType = usage_pb.WINDOW_UNSPECIFIED,
        time_zone: str = "",
    ) -> usage_pb.QueryUsageResponse:
        return self.usage.QueryUsage(
            usage_pb.QueryUsageRequest(
                customer_id=customer,
                meter=meter,
                start_time=timestamp(start),
                end_time=timestamp(end),
                window=window,
                time_zone=time_zone,
            )
        )

    def total(self, customer: str, meter: str, start: datetime | None = None, end: datetime | None = None) -> Decimal:
        """What was used in a range that holds all test events, unless it is named."""
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        answer = self.query(customer, meter, start or today - timedelta(days=380), end or today + timedelta(days=2))
        return Decimal(answer.total.value)

    def seal(
        self, customer: str, start: datetime, end: datetime, *, request_id: str | None = None
    ) -> usage_pb.SealUsageResponse:
        return self.usage.SealUsage(
            usage_pb.SealUsageRequest(
                customer_id=customer,
                start_time=timestamp(start),
                end_time=timestamp(end),
                request_id=request_id or f"seal-{next(_numbers)}",
            ),
            timeout=30,
        )

    def check(self, customer: str, meter: str, quantity: str = "1") -> limits_pb.CheckLimitResponse:
        return self.limits.CheckLimit(
            limits_pb.CheckLimitRequest(customer_id=customer, meter=meter, quantity=decimal_pb2.Decimal(value=quantity))
        )

    def reserve(
        self, customer: str, meter: str, quantity: str, *, seconds: int = 0, request_id: str | None = None
    ) -> limits_pb.Reservation:
        reservation = limits_pb.Reservation(meter=meter, quantity=decimal_pb2.Decimal(value=quantity))
        if seconds:
            reservation.ttl.seconds = seconds
        return self.limits.ReserveQuota(
            limits_pb.ReserveQuotaRequest(
                customer_id=customer, reservation=reservation, request_id=request_id or f"reserve-{next(_numbers)}"
            )
        )

    def commit(
        self,
        reservation: limits_pb.Reservation,
        event_id: str,
        *,
        quantity: str = "",
        request_id: str | None = None,
    ) -> limits_pb.Reservation:
        """Commit with an event of the tests' source."""
        return self.limits.CommitReservation(
            limits_pb.CommitReservationRequest(
                customer_id=reservation.customer_id,
                reservation_id=reservation.id,
                event_source=SOURCE,
                event_id=event_id,
                quantity=decimal_pb2.Decimal(value=quantity) if quantity else None,
                request_id=request_id or f"commit-{next(_numbers)}",
            )
        )

    def release(self, reservation: limits_pb.Reservation, *, request_id: str | None = None) -> limits_pb.Reservation:
        return self.limits.ReleaseReservation(
            limits_pb.ReleaseReservationRequest(
                customer_id=reservation.customer_id,
                reservation_id=reservation.id,
                request_id=request_id or f"release-{next(_numbers)}",
            )
        )

    def until_used(
        self, customer: str, meter: str, used: str, *, answered_from: limits_pb.AnsweredFrom.ValueType
    ) -> limits_pb.CheckLimitResponse:
        """Wait until a limit check says so, from the named place."""

        def said() -> limits_pb.CheckLimitResponse | None:
            answer = self.check(customer, meter)
            return answer if (answer.used.value, answer.answered_from) == (used, answered_from) else None

        answer = eventually(said)
        assert answer is not None
        return answer


def totals(seal: usage_pb.SealUsageResponse | usage_pb.LateUsage) -> dict[str, Decimal]:
    return {total.meter: Decimal(total.value.value) for total in seal.totals}


def amend(
    client: Client, wrong: events_pb.Event, right: events_pb.Event, *, reason: str = "", request_id: str = ""
) -> events_pb.Event:
    """Let another event count instead of one of a customer's that is named by id."""
    return client.events.AmendEvent(
        events_pb.AmendEventRequest(
            customer_id=wrong.customer_id,
            event_id=wrong.id,
            source=wrong.source,
            event=right,
            reason=reason,
            request_id=request_id,
        ),
        timeout=30,
    )


def cancel(client: Client, wrong: events_pb.Event, *, reason: str = "", request_id: str = "") -> events_pb.Event:
    """Let an event of a customer's that is named by id count no more."""
    return client.events.CancelEvent(
        events_pb.CancelEventRequest(
            customer_id=wrong.customer_id,
            event_id=wrong.id,
            source=wrong.source,
            reason=reason,
            request_id=request_id,
        ),
        timeout=30,
    )
