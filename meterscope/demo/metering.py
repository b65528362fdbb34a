"""The traffic goes in, and what Meterscope counted is compared with what the demo counted."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from meterscope import logimport
from meterscope.client import Outcome
from meterscope.demo.backend import Backend
from meterscope.demo.errors import DemoFailed
from meterscope.demo.month import Month
from meterscope.demo.state import State
from meterscope.demo.traffic import Log, Traffic
from meterscope.logimport import Report, Source
from meterscope.usage.v1 import event_service_pb2 as events
from meterscope.usage.v1 import usage_service_pb2 as usage

_REPLAY_DEADLINE_SECONDS: Final = 30.0
_QUERIES_AT_ONCE: Final = 8


def import_logs(backend: Backend, state: State, logs: Sequence[Log], on_progress: Callable[[int], None]) -> Report:
    """Send the logs, each moved by its days, through the client SDK."""
    sources = [
        Source(log.path, timedelta(days=state.shift_days[log.path.name]), limit=state.limit_lines) for log in logs
    ]
    return logimport.run(
        backend.usage_address, sources, source="accesslog", token=backend.token, on_progress=on_progress
    )


def check_import(report: Report, traffic: Traffic, customers: Sequence[str]) -> None:
    """Compare the answers with the input: each event of a customer is in, each other one is held.

    Raises:
        DemoFailed: they differ.
    """
    _expect("lines", report.lines, traffic.requests.total())
    _expect("bytes", report.bytes, traffic.bytes.total())
    _expect("malformed lines", report.malformed, 0)
    _expect("refused events", report.outcomes[Outcome.CONFLICT] + report.outcomes[Outcome.REJECTED], 0)
    for client in traffic.requests:
        stored = report.customers[Outcome.ACCEPTED][client] + report.customers[Outcome.DUPLICATE][client]
        held = report.customers[Outcome.QUARANTINED][client]
        _expect(f"events of {client}", stored + held, traffic.requests[client])
        if client in customers:
            _expect(f"events of the customer {client} that are held", held, 0)


def held(backend: Backend, key: str = "") -> int:
    """Return how many events are in quarantine, of one customer key or in all."""
    request = events.ListQuarantinedEventsRequest(customer_key=key, page_size=1)
    return backend.events.ListQuarantinedEvents(request).total_size


def replay(backend: Backend, keys: Sequence[str]) -> None:
    """Send the held events of these keys in again.

    Raises:
        DemoFailed: some are still held, or were refused.
    """
    for key in keys:
        request = events.ReplayQuarantinedEventsRequest(customer_key=key)
        answer = backend.events.ReplayQuarantinedEvents(request, timeout=_REPLAY_DEADLINE_SECONDS)
        _expect(f"events of {key} that a replay refused", answer.conflict + answer.rejected, 0)
        _expect(f"events of {key} in quarantine after the replay", held(backend, key), 0)


def check_totals(backend: Backend, ids: Mapping[str, str], traffic: Traffic, month: Month) -> None:
    """Compare the month's totals of both meters with the input, customer by customer.

    Raises:
        DemoFailed: they differ.
    """

    def total(customer_id: str, meter: str) -> Decimal:
        request = usage.QueryUsageRequest(customer_id=customer_id, meter=meter)
        request.start_time.FromDatetime(month.start)
        request.end_time.FromDatetime(month.end)
        return Decimal(backend.usage.QueryUsage(request).total.value or "0")

    # Each call waits for the rollup: side by side they wait for the same one.
    with ThreadPoolExecutor(_QUERIES_AT_ONCE) as threads:
        for meter, counted in (("requests", traffic.requests), ("bytes", traffic.bytes)):
            totals = threads.map(partial(total, meter=meter), ids.values())
            for key, found in zip(ids, totals, strict=True):
                _expect(f"{meter} of {key}", found, counted[key])


def _expect(what: str, found: Decimal | int, expected: Decimal | int) -> None:
    if found != expected:
        raise DemoFailed(f"{what}: {found:,} instead of {expected:,}")
