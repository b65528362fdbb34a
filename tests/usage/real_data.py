"""What the kinds of real data have in common: where they are, how they are sent, how the service is asked about them."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import grpc
from usage_harness import Client

from meterscope.usage.v1 import event_service_pb2 as events_pb
from meterscope.usage.v1 import usage_service_pb2 as usage_pb

EXAMPLES = Path(__file__).parents[2] / "examples"
_BATCH = 5_000
_QUESTIONS = 8
_ATTEMPTS = 5

Span = tuple[datetime, datetime]


def ingest(client: Client, events: Iterable[events_pb.Event]) -> int:
    """Send all in batches, every third one twice; return how many were accepted.

    As producers do, a batch that is not acknowledged is sent again: on a busy machine the rollup ends what holds it back.
    """
    accepted = 0
    waiting = list(events)
    for start in range(0, len(waiting), _BATCH):
        batch = waiting[start : start + _BATCH]
        response = _acknowledged(client, batch)
        # Known already is what came through without an answer.
        assert response.accepted + response.duplicate == len(batch)
        accepted += len(batch)
        if start // _BATCH % 3 == 0:
            assert _acknowledged(client, batch).duplicate == len(batch)
    return accepted


def _acknowledged(client: Client, batch: Sequence[events_pb.Event]) -> events_pb.IngestEventsResponse:
    for attempt in range(_ATTEMPTS):
        try:
            return client.ingest(*batch)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def totals(client: Client, wanted: Sequence[tuple[str, str]], span: Span) -> dict[tuple[str, str], Decimal]:
    """What the service says of customers' meters. Several are asked at a time: each answer waits for the rollup."""
    with ThreadPoolExecutor(_QUESTIONS) as pool:
        return dict(zip(wanted, pool.map(lambda each: client.total(*each, *span), wanted), strict=True))


def windows(
    client: Client,
    customer: str,
    meter: str,
    span: Span,
    window: usage_pb.Window.ValueType,
    *,
    time_zone: str = "",
) -> dict[datetime, Decimal]:
    """What the service says of a customer's meter, by the windows' starts."""
    answer = client.query(customer, meter, *span, window=window, time_zone=time_zone)
    return {each.start_time.ToDatetime(UTC): Decimal(each.value.value) for each in answer.windows}
