"""Events by the meter that counts them: what an invoice line of a filtered meter is explained by."""

from datetime import timedelta

import grpc
import pytest
from usage_harness import Client, cancel, event, utc

from meterscope.usage.v1 import event_service_pb2 as pb
from meterscope.usage.v1 import meter_service_pb2 as meters_pb

START = utc(2026, 7, 1)


def listed(client: Client, customer: str, meter: str, *, page_size: int = 2, state: int = 0) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListEventsRequest(
            customer_id=customer,
            meter=meter,
            page_size=page_size,
            page_token=token,
            state=pb.EventState.ValueType(state),
        )
        page = client.events.ListEvents(request)
        found += [each.id for each in page.events]
        token = page.next_page_token
        if not token:
            return found


def test_only_events_that_the_meter_counts_are_listed(client: Client) -> None:
    errors = meters_pb.MeterFilter(
        attribute="status", operator=meters_pb.FILTER_OPERATOR_GREATER_OR_EQUAL, values=["400"]
    )
    made = {
        "all": meters_pb.Meter(event_type="of-meter", aggregation=meters_pb.AGGREGATION_COUNT),
        "errors": meters_pb.Meter(event_type="of-meter", aggregation=meters_pb.AGGREGATION_COUNT, filters=[errors]),
        "largest": meters_pb.Meter(
            event_type="of-meter", aggregation=meters_pb.AGGREGATION_MAX, quantity="bytes", filters=[errors]
        ),
    }
    for name, meter in made.items():
        meter.id = f"of-meter-{name}"
        client.meters.CreateMeter(meters_pb.CreateMeterRequest(meter=meter))
    client.create_meter("of-another", event_type="of-another")
    customer = client.put_customer()
    statuses = ["200", "404", "500", "301", "400", "503"]
    sent = [
        event(
            customer,
            id=f"e{place}",
            type="of-meter",
            time=START + timedelta(minutes=place),
            attributes={"status": status},
            # A MAX looks at a quantity: without it an event is nothing to it.
            quantities={"bytes": "10"} if place != 4 else {},
        )
        for place, status in enumerate(statuses)
    ]
    client.ingest(*sent, event(customer, id="other", type="of-another", time=START))
    cancel(client, sent[2])

    assert listed(client, customer, "of-meter-all") == ["e0", "e1", "e2", "e3", "e4", "e5"]
    assert listed(client, customer, "of-meter-errors") == ["e1", "e2", "e4", "e5"]
    assert listed(client, customer, "of-meter-largest") == ["e1", "e2", "e5"]
    assert listed(client, customer, "of-another") == ["other"]
    assert listed(client, customer, "of-meter-errors", state=pb.EVENT_STATE_ACTIVE) == ["e1", "e4", "e5"]
    assert listed(client, customer, "of-meter-errors", state=pb.EVENT_STATE_CANCELLED) == ["e2"]
    assert listed(client, customer, "of-another", state=pb.EVENT_STATE_CANCELLED) == []


def test_an_unknown_meter_is_not_found(client: Client) -> None:
    request = pb.ListEventsRequest(customer_id=client.put_customer(), meter="nobody-knows")
    with pytest.raises(grpc.RpcError) as caught:
        client.events.ListEvents(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "nobody-knows" in (caught.value.details() or "")
