"""Sends a collector as many spans a second as a service would, from a process of its own that has them ready.

`python -m bench.span_replay ADDRESS SPANS_A_SECOND SECONDS`: says `ready` when they are encoded, and begins with the first
line on its standard input. What the collector and its backends do with them takes the same part of the machine whoever
sends them.
"""

import sys
import time

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from bench.load import INGEST
from services.kit.span_encoding import encoded
from services.kit.spans import Tracers

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# As many as a service sends at a time.
_BATCH = 512
# Sent in turns: each with traces of its own, as many as a collector has not decided on yet.
_BATCHES = 40


def main() -> None:
    """Make spans ready, wait for the word, send."""
    address, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    batches = [_batch() for _ in range(min(_BATCHES, int(rate * seconds / _BATCH) + 1))]
    with grpc.insecure_channel(address) as channel:
        export = channel.unary_unary(_EXPORT)
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.monotonic()
        number = 0
        while (due := number * _BATCH / rate) < seconds:
            time.sleep(max(0.0, started + due - time.monotonic()))
            export(batches[number % len(batches)], timeout=30)
            number += 1


def _batch() -> bytes:
    exporter = InMemorySpanExporter()
    provider = Tracers(
        resource=Resource.create({"service.name": "usage", "service.namespace": "meterscope"}), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("services.kit")
    method = INGEST.removeprefix("/")
    for _ in range(_BATCH):
        span = tracer.start_span(method, None, SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": method})
        span.set_attributes({"meterscope.events.accepted": 1, "rpc.response.status_code": "OK"})
        span.end()
    return encoded(exporter.get_finished_spans()).SerializeToString()


if __name__ == "__main__":
    main()
