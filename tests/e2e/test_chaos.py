"""Acknowledged means durable: whatever process is killed during ingest, nothing is lost and nothing counts twice."""

import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from eventually import eventually
from google.protobuf.timestamp_pb2 import Timestamp
from google.type import decimal_pb2

from meterscope.billing.v1 import customer_service_pb2, customer_service_pb2_grpc
from meterscope.usage.v1 import (
    event_service_pb2,
    event_service_pb2_grpc,
    meter_service_pb2,
    meter_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from tests.e2e.running import Running

SERVICES = ("usage", "billing", "payments", "alerts")
KINDS = ("postgres", "valkey", *SERVICES, *(f"{name}-worker" for name in SERVICES), "gateway")
KILLS_OF_EACH = 3
LEAST_EVENTS = 200_000
BATCH = 250
SENDERS = 8
# Of the calls, sent again though they were acknowledged.
RESENT = 0.05
CUSTOMERS = 40
Response = event_service_pb2.IngestEventsResponse | event_service_pb2.StreamEventsResponse
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)


class Streamed:
    """IngestEvents by a stream: each batch is a request of it. One that ended is followed by another."""

    def __init__(self, stub: event_service_pb2_grpc.EventServiceStub) -> None:
        self._stub = stub
        self._requests: queue.SimpleQueue[event_service_pb2.StreamEventsRequest | None] = queue.SimpleQueue()
        self._call: Any = None

    def __call__(
        self, request: event_service_pb2.IngestEventsRequest, *, timeout: float
    ) -> event_service_pb2.StreamEventsResponse:
        if self._call is None:
            self._requests = queue.SimpleQueue()
            self._call = self._stub.StreamEvents(iter(self._requests.get, None), timeout=timeout)
        self._requests.put(event_service_pb2.StreamEventsRequest(events=request.events))
        try:
            answer: event_service_pb2.StreamEventsResponse = next(self._call)
        except grpc.RpcError:
            self.close()
            raise
        return answer

    def close(self) -> None:
        self._requests.put(None)
        self._call = None


@dataclass
class Sender(threading.Thread):
    """Sends batches one behind the other, each until it is acknowledged, and keeps what was. Every other one streams."""

    number: int
    address: str
    stopping: threading.Event
    name: str = "sender"
    daemon: bool = True
    sent: int = 0
    retries: int = 0
    resent: int = 0
    in_flight: bool = False
    acknowledged: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.chance = random.Random(self.number)

    def __hash__(self) -> int:
        return self.number

    def run(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
            stub = event_service_pb2_grpc.EventServiceStub(channel)
            streamed = Streamed(stub)
            ask = streamed if self.number % 2 else stub.IngestEvents
            while not self.stopping.is_set():
                if self.acknowledged and self.chance.random() < RESENT:
                    # What was acknowledged is known, whatever was killed since: every event is a duplicate.
                    again = self.send(ask, self.chance.choice(self.acknowledged))
                    if again.duplicate != BATCH:
                        self.refused.append(f"{again.accepted} of a batch that was acknowledged counted again")
                    self.resent += 1
                first = (len(self.acknowledged) * SENDERS + self.number) * BATCH
                self.send(ask, first)
                self.acknowledged.append(first)
                self.sent += BATCH
            streamed.close()

    def send(self, ask: Callable[..., Response], first: int) -> Response:
        request = event_service_pb2.IngestEventsRequest(
            events=[event(number) for number in range(first, first + BATCH)]
        )
        while True:
            self.in_flight = True
            try:
                response = ask(request, timeout=20)
            except grpc.RpcError as error:
                if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                    self.refused.append(f"{error.code()}: {error.details()}")
                self.retries += 1
                time.sleep(0.05)
                continue
            finally:
                self.in_flight = False
            if response.accepted + response.duplicate != BATCH:
                self.refused.append(str(response.results[:1]))
            return response


def event(number: int) -> event_service_pb2.Event:
    """Event `number` of the input: everything about it follows from its number."""
    made = event_service_pb2.Event(
        id=f"e{number}", source="chaos", type="chaos.request", customer_key=f"chaos-{number % CUSTOMERS}"
    )
    made.time.FromDatetime(START + timedelta(milliseconds=number * 7 % 86_400_000))
    made.quantities["bytes"].CopyFrom(decimal_pb2.Decimal(value=str(quantity(number))))
    return made


def quantity(number: int) -> int:
    return number * 31 % 1_000


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_nothing_acknowledged_is_lost_or_counted_twice_whatever_is_killed(up: Running) -> None:
    customers = prepare(up)
    stopping = threading.Event()
    senders = [Sender(number, up.run["usage"], stopping) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    kills: Counter[str] = Counter()
    plan = [kind for kind in KINDS for _ in range(KILLS_OF_EACH)]
    random.Random(7).shuffle(plan)
    eventually(lambda: all(sender.acknowledged for sender in senders))
    for kind in plan:
        kill(up, kind, senders)
        kills[kind] += 1
    eventually(lambda: sum(sender.sent for sender in senders) >= LEAST_EVENTS, seconds=300)
    stopping.set()
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive()

    assert kills == dict.fromkeys(KINDS, KILLS_OF_EACH)
    assert [reason for sender in senders for reason in sender.refused] == []
    batches = sorted(first for sender in senders for first in sender.acknowledged)
    assert len(batches) * BATCH >= LEAST_EVENTS
    resent = sum(sender.resent for sender in senders)
    assert resent > 0
    print(
        f"\n{len(batches) * BATCH:,} events from {SENDERS} clients, {sum(kills.values())} kills, "
        f"{sum(sender.retries for sender in senders)} calls retried, {resent} batches sent again"
    )
    compare(up, customers, batches)
    # What was acknowledged is known: sent once more, every event is a duplicate and the totals stay.
    with up.channel("usage") as channel:
        again = event_service_pb2_grpc.EventServiceStub(channel)
        for first in random.Random(7).sample(batches, len(batches) // 20):
            events = [event(number) for number in range(first, first + BATCH)]
            assert again.IngestEvents(event_service_pb2.IngestEventsRequest(events=events)).duplicate == BATCH
    compare(up, customers, batches)


def prepare(up: Running) -> dict[str, str]:
    """Create meters and customers; return the customers' ids by key, once usage knows them."""
    with up.channel("usage") as usage, up.channel("billing") as billing:
        meters = meter_service_pb2_grpc.MeterServiceStub(usage)
        for name, aggregation, of in (
            ("chaos-requests", meter_service_pb2.AGGREGATION_COUNT, ""),
            ("chaos-bytes", meter_service_pb2.AGGREGATION_SUM, "bytes"),
        ):
            meter = meter_service_pb2.Meter(id=name, event_type="chaos.request", aggregation=aggregation, quantity=of)
            meters.CreateMeter(meter_service_pb2.CreateMeterRequest(meter=meter))
        stub = customer_service_pb2_grpc.CustomerServiceStub(billing)
        ids = {}
        for number in range(CUSTOMERS):
            key = f"chaos-{number}"
            customer = customer_service_pb2.Customer(external_key=key, display_name=key, currency="INR")
            ids[key] = stub.CreateCustomer(customer_service_pb2.CreateCustomerRequest(customer=customer)).id
        asked = usage_service_pb2_grpc.UsageServiceStub(usage)
        for customer_id in ids.values():
            eventually(lambda customer_id=customer_id: is_known(asked, customer_id))  # type: ignore[misc]
    return ids


def is_known(stub: usage_service_pb2_grpc.UsageServiceStub, customer_id: str) -> bool:
    try:
        return total(stub, customer_id, "chaos-requests") == 0
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND  # noqa: PT017 - anything else is a fault
        return False


def kill(up: Running, kind: str, senders: list[Sender]) -> None:
    """Kill one process while a call is in flight, and wait until another has taken its place."""
    pid = up.run["pids"][kind]
    eventually(lambda: any(sender.in_flight for sender in senders), seconds=60)
    in_flight = any(sender.in_flight for sender in senders)
    os.kill(pid, signal.SIGKILL)
    assert in_flight
    eventually(lambda: up.run["pids"].get(kind, pid) != pid, seconds=60)
    # A stream that stands still shows nothing: go on only when batches are acknowledged again.
    before = sum(sender.sent for sender in senders)
    eventually(lambda: sum(sender.sent for sender in senders) > before, seconds=60)


def total(stub: usage_service_pb2_grpc.UsageServiceStub, customer_id: str, meter: str) -> Decimal:
    """Ask for a customer's total, when all that was acknowledged is in it."""
    asked = datetime.now(UTC)
    start, end = Timestamp(), Timestamp()
    start.FromDatetime(START)
    end.FromDatetime(START + timedelta(days=1))
    request = usage_service_pb2.QueryUsageRequest(customer_id=customer_id, meter=meter, start_time=start, end_time=end)
    answer = eventually(lambda: current(stub.QueryUsage(request, timeout=10), asked))
    return Decimal(answer.total.value)


def current(
    answer: usage_service_pb2.QueryUsageResponse, asked: datetime
) -> usage_service_pb2.QueryUsageResponse | None:
    return answer if answer.as_of.ToDatetime(UTC) >= asked else None


def compare(up: Running, customers: dict[str, str], batches: list[int]) -> None:
    """Compare every total with the input, counted here."""
    counts: Counter[str] = Counter()
    sums: Counter[str] = Counter()
    for first in batches:
        for number in range(first, first + BATCH):
            counts[f"chaos-{number % CUSTOMERS}"] += 1
            sums[f"chaos-{number % CUSTOMERS}"] += quantity(number)
    with up.channel("usage") as channel:
        stub = usage_service_pb2_grpc.UsageServiceStub(channel)
        for key, customer_id in customers.items():
            assert total(stub, customer_id, "chaos-requests") == counts[key]
            assert total(stub, customer_id, "chaos-bytes") == sums[key]
