"""OTLP metrics as Prometheus has them: families, and points under their labels."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from meterscope.alerts.v1 import metrics_service_pb2 as metrics_pb
from services.alerts.sink.names import label_name, metric_name, unit_of

# Attributes of the process that are labels of every series; prometheus.yml promotes the same.
PROMOTED: Final = (
    "service.name",
    "service.namespace",
    "service.version",
    "deployment.environment.name",
    "host.name",
)
TARGET_INFO: Final = "target_info"
_IDENTIFYING: Final = ("service.namespace", "service.name", "service.instance.id")
_CUSTOMER: Final = "customer_id"
_TENANT: Final = "tenant_id"
_GONE: Final = otlp.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_BIG: Final = 1e15  # whole numbers above it are not written out


class Unfit(Exception):
    """A metric or a point that is not kept. The message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """The process that a metric is of.

    Attributes:
        labels: on each of its series: `job`, `instance` and the promoted attributes.
        info: the labels of its `target_info`; none where there is nothing to tell or nobody to tell it of.
    """

    labels: Mapping[str, str]
    info: Mapping[str, str]

    @classmethod
    def of(cls, resource: Resource) -> "Source":
        """Read a process' attributes."""
        attributes = {attribute.key: _text(attribute.value) for attribute in resource.attributes}
        labels = {label_name(key): attributes[key] for key in PROMOTED if attributes.get(key)}
        target = {}
        if name := attributes.get("service.name"):
            namespace = attributes.get("service.namespace")
            target["job"] = f"{namespace}/{name}" if namespace else name
        if instance := attributes.get("service.instance.id"):
            target["instance"] = instance
        told = labels_of(attribute for attribute in resource.attributes if attribute.key not in _IDENTIFYING)
        return cls({**labels, **target}, {**told, **target} if told and target else {})


@dataclass(frozen=True)
class Family:
    """What all series of a name share, whichever process they are of."""

    name: str
    kind: "metrics_pb.MetricKind.ValueType"
    unit: str
    description: str


@dataclass(frozen=True)
class Point:
    """The latest point of a series.

    Attributes:
        key: the labels; as bytes, which take a fifth of the memory that a dict takes.
        time: when it was measured, in unix nanoseconds.
        data: the rest, likewise: `MetricSeries.FromString(key + data)` has all. None: the series has ended.
    """

    key: bytes
    time: int
    data: bytes | None


def family_of(metric: otlp.Metric) -> Family:
    """Return the family of a metric.

    Raises:
        Unfit: it is of a kind that is not kept, counts since its last export only, or has no name.
    """
    what = metric.WhichOneof("data")
    if what == "gauge":
        kind = metrics_pb.METRIC_KIND_GAUGE
    elif what == "sum":
        kind = metrics_pb.METRIC_KIND_COUNTER if metric.sum.is_monotonic else metrics_pb.METRIC_KIND_GAUGE
        _must_be_cumulative(metric.sum.aggregation_temporality)
    elif what == "histogram":
        kind = metrics_pb.METRIC_KIND_HISTOGRAM
        _must_be_cumulative(metric.histogram.aggregation_temporality)
    else:
        raise Unfit(f"no {what or 'data'} is kept; send sums, gauges and histograms with explicit bounds")
    is_counter = kind == metrics_pb.METRIC_KIND_COUNTER
    name = metric_name(metric.name, metric.unit, is_counter=is_counter, is_gauge=what == "gauge")
    if not name or name == TARGET_INFO:
        raise Unfit(f"{metric.name[:64]!r} is no name for a metric")
    return Family(name, kind, unit_of(name, metric.unit, is_counter=is_counter), metric.description)


def points_of(metric: otlp.Metric) -> "Sequence[otlp.NumberDataPoint | otlp.HistogramDataPoint]":
    """Return a metric's points as they came, of whatever kind."""
    what = metric.WhichOneof("data")
    points: Sequence[Any] = getattr(metric, what).data_points if what else ()
    return points


def translate(point: "otlp.NumberDataPoint | otlp.HistogramDataPoint", source: Source) -> Point:
    """Translate a point.

    Raises:
        Unfit: a histogram whose buckets do not belong to its bounds.
    """
    labels = labels_of(point.attributes)
    # The name of the series. A page that has it among the labels is refused as a whole; Prometheus drops it from OTLP.
    labels.pop("__name__", None)
    # The process says who it is; a label of that name would contradict it.
    for own in ("job", "instance"):
        if own in source.labels:
            labels.pop(own, None)
    if _CUSTOMER in labels:
        labels[_TENANT] = labels[_CUSTOMER]
    key = metrics_pb.MetricSeries(labels=labels).SerializeToString(deterministic=True)
    if point.flags & _GONE:
        return Point(key, point.time_unix_nano, None)
    series = metrics_pb.MetricSeries()
    if isinstance(point, otlp.HistogramDataPoint):
        _fill(series.histogram, point)
    elif point.WhichOneof("value") == "as_int":
        series.number = point.as_int
    else:
        series.number = point.as_double
    series.time.FromNanoseconds(point.time_unix_nano)
    if point.start_time_unix_nano:
        series.start_time.FromNanoseconds(point.start_time_unix_nano)
    return Point(key, point.time_unix_nano, series.SerializeToString())


def _fill(histogram: metrics_pb.MetricHistogram, point: otlp.HistogramDataPoint) -> None:
    if len(point.bucket_counts) != (len(point.explicit_bounds) + 1 if point.bucket_counts else 0):
        raise Unfit(f"{len(point.bucket_counts)} buckets do not belong to {len(point.explicit_bounds)} bounds")
    histogram.count = point.count
    if point.HasField("sum"):
        histogram.sum = point.sum
    if point.bucket_counts:
        histogram.bounds.extend(point.explicit_bounds)
        histogram.counts.extend(point.bucket_counts)


def labels_of(attributes: "Iterator[KeyValue] | Sequence[KeyValue]") -> dict[str, str]:
    """Return attributes as labels. Values whose keys become the same label are joined, in the keys' order."""
    labels: dict[str, str] = {}
    for attribute in sorted(attributes, key=lambda attribute: attribute.key):
        name, value = label_name(attribute.key), _text(attribute.value)
        # To Prometheus an empty label is none.
        if name and value:
            labels[name] = f"{labels[name]};{value}" if name in labels else value
    return labels


def _must_be_cumulative(temporality: "otlp.AggregationTemporality.ValueType") -> None:
    if temporality != otlp.AGGREGATION_TEMPORALITY_CUMULATIVE:
        raise Unfit(
            "only cumulative sums and histograms are kept; leave OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE at"
            " `cumulative`"
        )


def _text(value: AnyValue) -> str:
    """Return a value as Prometheus writes it in a label."""
    if value.WhichOneof("value") == "string_value":
        return value.string_value
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else orjson.dumps(plain).decode()


def _plain(value: AnyValue) -> Any:
    """Return a value as JSON has it; bytes in base 64."""
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_plain(each) for each in value.array_value.values]
        case "kvlist_value":
            return {each.key: _plain(each.value) for each in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if value.double_value.is_integer() and abs(value.double_value) < _BIG:
            return int(value.double_value)
        case kind:
            return getattr(value, kind)
