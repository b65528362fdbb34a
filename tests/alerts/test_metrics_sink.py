"""The sink as processes and the gateway use it: over real gRPC, from the real SDK's exporters."""

import logging
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Meter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from meterscope.alerts.v1 import metrics_service_pb2 as metrics_pb
from meterscope.alerts.v1 import metrics_service_pb2_grpc as metrics_grpc
from services.alerts.servicer import MetricsServicer, SinkServicer
from services.alerts.sink.latest import FORGET_SECONDS, Latest, Refused
from services.kit import sink
from services.kit.config import KitSettings
from services.kit.server import Server
from services.kit.settings import read

TOKEN = "sesame"
BEARER = (("authorization", f"Bearer {TOKEN}"),)
ROOMY = 1 << 30
CUMULATIVE = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE


@dataclass
class Clock:
    """A monotonic clock that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Sample:
    """One series as it is read."""

    kind: str
    unit: str
    labels: dict[str, str]
    series: metrics_pb.MetricSeries

    @property
    def value(self) -> float:
        return self.series.number


def found(messages: Any) -> dict[str, list[Sample]]:
    """Series by family name."""
    samples: dict[str, list[Sample]] = {}
    for message in messages:
        for family in message.families:
            kind = metrics_pb.MetricKind.Name(family.kind).removeprefix("METRIC_KIND_")
            samples.setdefault(family.name, []).extend(
                Sample(kind, family.unit, {**family.labels, **series.labels}, series) for series in family.series
            )
    return samples


@dataclass(frozen=True)
class Sink:
    """The sink behind a server that asks for the token."""

    address: str
    latest: Latest
    stub: metrics_grpc.MetricsServiceStub

    def read(self, prefix: str = "") -> dict[str, list[Sample]]:
        return found(self.stub.ReadMetrics(metrics_pb.ReadMetricsRequest(name_prefix=prefix), metadata=BEARER))


@pytest.fixture
def serve() -> Iterator[Callable[[], Sink]]:
    servers: list[Server] = []
    channels: list[grpc.Channel] = []
    settings = read(KitSettings, {"METERSCOPE_SERVICE_TOKEN": TOKEN, "METERSCOPE_GRACE_SECONDS": "0"})

    def start() -> Sink:
        latest = Latest(max_series=1000, max_bytes=ROOMY)

        def add(server: grpc.Server) -> None:
            metrics_grpc.add_MetricsServiceServicer_to_server(MetricsServicer(latest), server)
            otlp_grpc.add_MetricsServiceServicer_to_server(SinkServicer(latest), server)

        servers.append(Server("127.0.0.1:0", add, service_names=(), settings=settings))
        servers[-1].start()
        channels.append(grpc.insecure_channel(servers[-1].address))
        return Sink(servers[-1].address, latest, metrics_grpc.MetricsServiceStub(channels[-1]))

    yield start
    for channel in channels:
        channel.close()
    for server in servers:
        server.stop()


@pytest.fixture
def served(serve: Callable[[], Sink]) -> Sink:
    return serve()


@dataclass(frozen=True)
class Process:
    """A process with the SDK in it."""

    meter: Meter
    reader: MetricReader

    def export(self) -> None:
        self.reader.collect()


RESOURCE: dict[str, str | int] = {
    "service.namespace": "meterscope",
    "service.name": "usage-worker",
    "service.instance.id": "host-1",
    "service.version": "1.2.3",
    "process.pid": 42,
}


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    providers: list[MeterProvider] = []

    def start(reader: MetricReader, **attributes: str) -> Process:
        changed = {name.replace("_", "."): value for name, value in attributes.items()}
        providers.append(MeterProvider([reader], resource=Resource({**RESOURCE, **changed}), shutdown_on_exit=False))
        return Process(providers[-1].get_meter("tests"), reader)

    yield start
    for provider in providers:
        provider.shutdown()


def of_sdk(served: Sink, token: str = TOKEN) -> MetricReader:
    """What anybody's process sends with: the SDK's own exporter."""
    exporter = OTLPMetricExporter(
        endpoint=f"http://{served.address}", insecure=True, headers=(("authorization", f"Bearer {token}"),)
    )
    return PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))


def of_kit(served: Sink, token: str = TOKEN) -> MetricReader:
    """What our processes send with."""
    return PeriodicExportingMetricReader(sink.SinkExporter(served.address, token), export_interval_millis=float("inf"))


@pytest.mark.parametrize("reader", [of_sdk, of_kit])
def test_what_the_sdk_sends_has_prometheus_names_and_labels(
    served: Sink, process: Callable[..., Process], reader: Callable[[Sink], MetricReader]
) -> None:
    usage = process(reader(served))
    usage.meter.create_counter("billing.usage.increment").add(3, {"customer_id": "cus_1", "metric_type": "calls"})
    usage.meter.create_up_down_counter("queue.size", unit="{item}").add(-2)
    usage.meter.create_observable_gauge("billing.db.share", unit="1", callbacks=[])
    usage.meter.create_gauge("process.memory.utilization", unit="1").set(0.25)
    usage.meter.create_histogram(
        "rpc.server.call.duration", unit="s", explicit_bucket_boundaries_advisory=(0.1, 1.0)
    ).record(0.5, {"rpc.method": "a/B", "rpc.code": 0, "ok": True})
    usage.export()
    samples = served.read()
    common = {
        "job": "meterscope/usage-worker",
        "instance": "host-1",
        "service_name": "usage-worker",
        "service_namespace": "meterscope",
        "service_version": "1.2.3",
    }
    assert set(samples) == {
        "billing_usage_increment_total",
        "queue_size",
        "process_memory_utilization_ratio",
        "rpc_server_call_duration_seconds",
        "target_info",
    }
    (counter,) = samples["billing_usage_increment_total"]
    assert (counter.kind, counter.value) == ("COUNTER", 3)
    assert counter.labels == {**common, "customer_id": "cus_1", "tenant_id": "cus_1", "metric_type": "calls"}
    assert 0 < counter.series.start_time.ToNanoseconds() <= counter.series.time.ToNanoseconds()
    (size,) = samples["queue_size"]
    assert (size.kind, size.value, size.unit) == ("GAUGE", -2, "")
    (memory,) = samples["process_memory_utilization_ratio"]
    assert (memory.kind, memory.value) == ("GAUGE", 0.25)
    (duration,) = samples["rpc_server_call_duration_seconds"]
    assert (duration.kind, duration.unit) == ("HISTOGRAM", "seconds")
    assert duration.labels == {**common, "rpc_method": "a/B", "rpc_code": "0", "ok": "true"}
    histogram = duration.series.histogram
    assert (list(histogram.bounds), list(histogram.counts)) == ([0.1, 1.0], [0, 1, 0])
    assert (histogram.count, histogram.sum) == (1, 0.5)
    (target,) = samples["target_info"]
    assert (target.kind, target.value) == ("INFO", 1)
    assert target.labels == {
        "job": "meterscope/usage-worker",
        "instance": "host-1",
        "process_pid": "42",
        "service_version": "1.2.3",
    }


def test_series_of_two_processes_stand_side_by_side(served: Sink, process: Callable[..., Process]) -> None:
    for instance in ("host-1", "host-2"):
        usage = process(of_kit(served), service_instance_id=instance)
        usage.meter.create_counter("billing.jobs").add(1, {"queue": "usage"})
        usage.export()
    assert {sample.labels["instance"] for sample in served.read()["billing_jobs_total"]} == {"host-1", "host-2"}


def test_the_next_export_replaces_the_one_before(served: Sink, process: Callable[..., Process]) -> None:
    usage = process(of_kit(served))
    jobs = usage.meter.create_counter("billing.jobs")
    for expected in (1, 2):
        jobs.add(1)
        usage.export()
        assert [sample.value for sample in served.read()["billing_jobs_total"]] == [expected]


def test_only_the_families_that_are_asked_for_are_read(served: Sink, process: Callable[..., Process]) -> None:
    usage = process(of_kit(served))
    usage.meter.create_counter("billing.jobs").add(1)
    usage.meter.create_counter("other.jobs").add(1)
    usage.export()
    assert set(served.read("billing_")) == {"billing_jobs_total"}
    assert set(served.read("target_")) == {"target_info"}
    assert served.read("nothing_") == {}


@pytest.mark.parametrize("reader", [of_sdk, of_kit])
def test_without_the_service_token_nothing_is_taken(
    served: Sink,
    process: Callable[..., Process],
    reader: Callable[[Sink, str], MetricReader],
    caplog: pytest.LogCaptureFixture,
) -> None:
    stranger = process(reader(served, "guessed"))
    stranger.meter.create_counter("billing.jobs").add(1)
    with caplog.at_level(logging.CRITICAL):  # the SDK's exporter tells it, as it should
        stranger.export()
    assert served.read() == {}
    with grpc.insecure_channel(served.address) as channel, pytest.raises(grpc.RpcError) as refused:
        list(metrics_grpc.MetricsServiceStub(channel).ReadMetrics(metrics_pb.ReadMetricsRequest()))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_sink_that_was_started_anew_has_everything_after_the_next_export(
    serve: Callable[[], Sink], process: Callable[..., Process]
) -> None:
    first, second = serve(), serve()
    usage = process(of_kit(first))
    usage.meter.create_counter("billing.jobs").add(5)
    usage.export()
    # The second never saw the first export: cumulative points say everything again.
    again = process(of_kit(second))
    again.meter.create_counter("billing.jobs").add(5)
    again.export()
    assert [sample.value for sample in second.read()["billing_jobs_total"]] == [5]


def test_delta_temporality_is_refused_with_what_to_do(served: Sink) -> None:
    request = export(sum_of("billing.jobs", 1, temporality=otlp.AGGREGATION_TEMPORALITY_DELTA))
    with grpc.insecure_channel(served.address) as channel:
        stub = otlp_grpc.MetricsServiceStub(channel)
        answer = stub.Export(request, metadata=BEARER)
    assert answer.partial_success.rejected_data_points == 1
    assert answer.partial_success.error_message == (
        "billing.jobs: only cumulative sums and histograms are kept; leave"
        " OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE at `cumulative`"
    )
    assert served.read() == {}


def test_the_kits_exporter_tells_a_refusal_once(
    served: Sink, process: Callable[..., Process], caplog: pytest.LogCaptureFixture
) -> None:
    usage = process(of_kit(served))
    usage.meter.create_counter("billing.jobs").add(1)
    usage.export()
    other = process(of_kit(served), service_instance_id="host-2")
    other.meter.create_gauge("billing.jobs.total").set(1)
    with caplog.at_level(logging.WARNING, "services.kit.sink"):
        other.export()
        other.export()
    told = [record.getMessage() for record in caplog.records if record.name == "services.kit.sink"]
    assert told == ["metrics were refused: billing_jobs_total is a counter already; give one of the two another name"]


def test_a_sink_that_is_away_is_told_once(process: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    away = process(PeriodicExportingMetricReader(sink.SinkExporter("127.0.0.1:1", None), float("inf")))
    away.meter.create_counter("billing.jobs").add(1)
    with caplog.at_level(logging.INFO, "services.kit.sink"):
        for _ in range(6):
            away.export()
    # Four failures in a row are a minute: a restart of alerts is nothing to tell.
    assert [record.levelname for record in caplog.records if record.name == "services.kit.sink"] == ["WARNING"]


# What follows needs points that no SDK sends in order, and a clock.


def attributes(labels: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in labels.items()]


def sum_of(
    name: str,
    value: float,
    labels: Mapping[str, str] | None = None,
    *,
    time: int = 10,
    start: int = 1,
    flags: int = 0,
    temporality: "otlp.AggregationTemporality.ValueType" = CUMULATIVE,
) -> otlp.Metric:
    point = otlp.NumberDataPoint(
        as_double=value,
        time_unix_nano=time,
        start_time_unix_nano=start,
        attributes=attributes(labels or {}),
        flags=flags,
    )
    return otlp.Metric(
        name=name, sum=otlp.Sum(data_points=[point], is_monotonic=True, aggregation_temporality=temporality)
    )


def export(*metrics: otlp.Metric, instance: str = "host-1") -> otlp_pb.ExportMetricsServiceRequest:
    resource = OtlpResource(attributes=attributes({"service.name": "usage", "service.instance.id": instance}))
    return otlp_pb.ExportMetricsServiceRequest(
        resource_metrics=[otlp.ResourceMetrics(resource=resource, scope_metrics=[otlp.ScopeMetrics(metrics=metrics)])]
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def latest(clock: Clock) -> Latest:
    return Latest(max_series=1000, max_bytes=ROOMY, clock=clock)


def values(latest: Latest, name: str) -> list[float]:
    return [sample.value for sample in found(latest.read()).get(name, [])]


def test_points_that_come_late_or_twice_change_nothing(latest: Latest) -> None:
    latest.take(export(sum_of("billing.jobs", 5, time=20)))
    latest.take(export(sum_of("billing.jobs", 4, time=19)))
    latest.take(export(sum_of("billing.jobs", 5, time=20)))
    assert values(latest, "billing_jobs_total") == [5]


def test_a_counter_that_begins_anew_is_taken_as_it_is(latest: Latest) -> None:
    latest.take(export(sum_of("billing.jobs", 5, time=20, start=1)))
    latest.take(export(sum_of("billing.jobs", 1, time=30, start=25)))
    (sample,) = found(latest.read())["billing_jobs_total"]
    assert (sample.value, sample.series.start_time.ToNanoseconds()) == (1, 25)


def test_a_process_that_is_gone_is_forgotten(latest: Latest, clock: Clock) -> None:
    latest.take(export(sum_of("billing.jobs", 1), instance="gone"))
    clock.now += FORGET_SECONDS / 2
    latest.take(export(sum_of("billing.jobs", 2), instance="there"))
    clock.now += FORGET_SECONDS / 2
    assert values(latest, "billing_jobs_total") == [1, 2]
    clock.now += 1
    assert values(latest, "billing_jobs_total") == [2]
    clock.now += FORGET_SECONDS
    assert list(latest.read()) == []
    assert latest.size == (0, 0)


def test_a_series_that_its_process_measures_no_more_is_forgotten(latest: Latest, clock: Clock) -> None:
    latest.take(export(sum_of("billing.jobs", 1), sum_of("billing.lease.held", 1)))
    clock.now += FORGET_SECONDS + 1
    latest.take(export(sum_of("billing.jobs", 2, time=20)))
    assert set(found(latest.read("billing_"))) == {"billing_jobs_total"}


def test_a_series_that_is_said_to_have_ended_goes_at_once(latest: Latest) -> None:
    latest.take(export(sum_of("billing.jobs", 1, time=10)))
    latest.take(export(sum_of("billing.jobs", 0, time=20, flags=1)))
    assert values(latest, "billing_jobs_total") == []


def test_kinds_and_histograms_that_are_not_kept_are_counted(latest: Latest) -> None:
    summary = otlp.Metric(name="s", summary=otlp.Summary(data_points=[otlp.SummaryDataPoint()] * 2))
    point = otlp.HistogramDataPoint(explicit_bounds=[1, 2], bucket_counts=[1, 2], count=3)
    histogram = otlp.Metric(
        name="h", unit="s", histogram=otlp.Histogram(data_points=[point], aggregation_temporality=CUMULATIVE)
    )
    nameless = sum_of("...", 1)
    assert latest.take(export(summary, histogram, nameless, sum_of("fine", 1))) == Refused(
        4,
        "s: no summary is kept; send sums, gauges and histograms with explicit bounds; "
        "h_seconds: 2 buckets do not belong to 2 bounds; ...: '...' is no name for a metric",
    )
    assert values(latest, "fine_total") == [1]


def test_labels_that_become_one_are_joined_and_the_process_name_stays(latest: Latest) -> None:
    latest.take(
        export(
            sum_of("billing.jobs", 1, {"a.b": "2", "a-b": "1", "job": "mine", "9": "x", "empty": "", "__name__": "x"})
        )
    )
    (sample,) = found(latest.read())["billing_jobs_total"]
    assert sample.labels == {
        "a_b": "1;2",
        "key_9": "x",
        "job": "usage",
        "instance": "host-1",
        "service_name": "usage",
    }


def test_a_full_sink_goes_on_with_what_it_has() -> None:
    latest = Latest(max_series=2, max_bytes=ROOMY)
    first = [sum_of("billing.jobs", 1, {"queue": str(number)}, time=10) for number in range(3)]
    refused = latest.take(export(*first))
    assert refused.points == 1
    assert "METERSCOPE_METRICS_SINK_SERIES" in refused.message
    again = [sum_of("billing.jobs", 7, {"queue": str(number)}, time=20) for number in range(2)]
    assert latest.take(export(*again)).points == 0
    assert values(latest, "billing_jobs_total") == [7, 7]


def test_what_processes_say_of_themselves_and_of_their_metrics_is_within_the_bound_too(clock: Clock) -> None:
    bound = 1 << 20
    latest = Latest(max_series=1_000, max_bytes=bound, clock=clock)
    long = "x" * 10_000
    for number in range(200):
        of_one = export(sum_of("billing.jobs", 1), instance=f"host-{number}")
        of_one.resource_metrics[0].resource.attributes.extend(attributes({"process.command": long}))
        latest.take(of_one)
    held = latest.size
    assert bound / 2 < held.bytes <= bound
    # Those that are known go on, others are refused.
    assert latest.take(export(sum_of("billing.jobs", 2, time=20), instance="host-0")).points == 0
    assert latest.take(export(sum_of("billing.jobs", 2), instance="host-new" + 2 * long)).points == 1
    clock.now += FORGET_SECONDS + 1
    for number in range(200):
        described = sum_of(f"billing.jobs.of{number}", 1)
        described.description = long
        latest.take(export(described))
    assert bound / 2 < latest.size.bytes <= bound
    assert len(next(latest.read("billing_")).families) == latest.size.series < 200
    clock.now += FORGET_SECONDS + 1
    assert list(latest.read()) == []
    assert latest.size == (0, 0)


def test_memory_stays_within_the_bound_with_50000_customers() -> None:
    bound = 16 << 20
    latest = Latest(max_series=1_000_000, max_bytes=bound)
    names = ("billing.usage.increment", "billing.limit.exceeded")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        refused = 0
        # As batches of an exporter: 50 of 1,000 customers, each with two counters.
        for batch in range(50):
            customers = range(batch * 1000, batch * 1000 + 1000)
            metrics = [
                sum_of(name, number, {"customer_id": f"cus_{number:032d}", "metric_type": "calls"})
                for name in names
                for number in customers
            ]
            refused += latest.take(export(*metrics)).points
        del metrics
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # 50,000 customers with 2 each are 100,000 series; what fits is kept, the rest refused, none lost silently.
    assert latest.size.series + refused == 100_000
    assert 0 < latest.size.series < 100_000
    assert latest.size.bytes <= bound
    assert taken < bound * 1.1
