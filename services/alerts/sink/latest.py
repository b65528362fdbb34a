"""The latest point of every series, bounded in series and in bytes."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from meterscope.alerts.v1 import metrics_service_pb2 as metrics_pb
from services.alerts.sink.points import TARGET_INFO, Family, Point, Source, Unfit, family_of, points_of, translate

# Prometheus shows what came by OTLP for as long after its last sample.
FORGET_SECONDS: Final = 300.0
SERIES_IN_A_MESSAGE: Final = 2_000
# What a series takes beside its own bytes: two bytes objects, a tuple, a number, its place in a dict (measured).
SERIES_OVERHEAD_BYTES: Final = 300
# What a process takes beside its texts, and a family likewise: some dicts each.
HOLDER_OVERHEAD_BYTES: Final = 1_000
_SWEEP_SECONDS: Final = 1.0
_COMPLAIN_SECONDS: Final = 60.0
_REASONS: Final = 5  # of one export that are told
_FULL: Final = (
    "the sink is full, new series are refused: export fewer (METRICS_MAX_CUSTOMERS), or raise"
    " METERSCOPE_METRICS_SINK_SERIES and METERSCOPE_METRICS_SINK_MIB of the alerts service"
)

_log = logging.getLogger(__name__)

Identity = tuple[tuple[str, str], ...]


class _Stored(NamedTuple):
    heard: float  # when it was last sent, s on the monotonic clock
    time: int
    data: bytes


@dataclass
class _Kept:
    """A family's series by process."""

    family: Family
    sources: dict[Identity, dict[bytes, _Stored]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that it takes beside its series."""
        return _size_of((self.family.name, self.family.unit, self.family.description))


@dataclass
class _Heard:
    """A process that sent something."""

    source: Source
    heard: float

    @property
    def size(self) -> int:
        """Bytes that it takes beside its series."""
        return _size_of(
            text for labels in (self.source.labels, self.source.info) for pair in labels.items() for text in pair
        )


class Size(NamedTuple):
    """How many series are kept, and about how many bytes of memory they take."""

    series: int
    bytes: int


@dataclass(frozen=True)
class Refused:
    """Points that were not kept: how many, and why; no reason where all were."""

    points: int
    message: str


class Latest:
    """The latest points. Its methods may be called from any thread."""

    def __init__(self, *, max_series: int, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty.

        Args:
            max_series: series that are kept; a histogram counts as one.
            max_bytes: memory that they may take, with labels, descriptions and what processes say of themselves.
            clock: monotonic, s.
        """
        self._max_series = max_series
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._families: dict[str, _Kept] = {}
        self._heard: dict[Identity, _Heard] = {}
        self._series = 0
        self._bytes = 0
        self._swept = self._complained = float("-inf")

    @property
    def size(self) -> Size:
        """How much is kept."""
        return Size(self._series, self._bytes)

    def take(self, request: ExportMetricsServiceRequest) -> Refused:
        """Keep an export's points, except those that are older than what is kept, and those that are refused.

        A full sink goes on with the series that it has, and refuses new ones.
        """
        now = self._clock()
        refused: Counter[str] = Counter()
        for of_resource in request.resource_metrics:
            source = Source.of(of_resource.resource)
            identity = tuple(sorted(source.labels.items()))
            with self._lock:
                self._sweep(now)
                is_heard = self._hear(identity, source, now)
            if not is_heard:
                refused[_FULL] += sum(
                    len(points_of(metric)) for scope in of_resource.scope_metrics for metric in scope.metrics
                )
                continue
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    try:
                        family = family_of(metric)
                    except Unfit as unfit:
                        refused[f"{metric.name}: {unfit}"] += len(points_of(metric))
                        continue
                    points = []
                    for each in points_of(metric):
                        try:
                            points.append(translate(each, source))
                        except Unfit as unfit:
                            refused[f"{family.name}: {unfit}"] += 1
                    with self._lock:
                        self._put(family, identity, points, now, refused)
        return self._tell(refused, now)

    def read(self, name_prefix: str = "") -> Iterator[metrics_pb.ReadMetricsResponse]:
        """Yield the families whose names begin with something, in the order of their names, in messages of some size."""
        with self._lock:
            self._sweep(self._clock())
            names = sorted(name for name in {*self._families, TARGET_INFO} if name.startswith(name_prefix))
        message, held = metrics_pb.ReadMetricsResponse(), 0
        for name in names:
            for part in self._infos() if name == TARGET_INFO else self._parts(name):
                if held + len(part.series) > SERIES_IN_A_MESSAGE:
                    yield message
                    message, held = metrics_pb.ReadMetricsResponse(), 0
                message.families.append(part)
                held += len(part.series)
        if message.families:
            yield message

    def _parts(self, name: str) -> Iterator[metrics_pb.MetricFamily]:
        with self._lock:
            kept = self._families.get(name)
            if kept is None:  # forgotten meanwhile
                return
            family = kept.family
            found = [(dict(identity), list(series.items())) for identity, series in kept.sources.items()]
        for labels, series in found:
            for start in range(0, len(series), SERIES_IN_A_MESSAGE):
                part = metrics_pb.MetricFamily(
                    name=name, kind=family.kind, unit=family.unit, description=family.description, labels=labels
                )
                for key, stored in series[start : start + SERIES_IN_A_MESSAGE]:
                    part.series.add().MergeFromString(key + stored.data)
                yield part

    def _infos(self) -> Iterator[metrics_pb.MetricFamily]:
        with self._lock:
            infos = [heard.source.info for heard in self._heard.values() if heard.source.info]
        series = [metrics_pb.MetricSeries(labels=info, number=1) for info in infos]
        if series:
            yield metrics_pb.MetricFamily(
                name=TARGET_INFO,
                kind=metrics_pb.METRIC_KIND_INFO,
                description="Attributes of the process",
                series=series,
            )

    def _hear(self, identity: Identity, source: Source, now: float) -> bool:
        """Note that a process sent something; say whether there is room for it. One that is known goes on as it was."""
        before, heard = self._heard.get(identity), _Heard(source, now)
        grown = heard.size - (before.size if before else 0)
        if grown > 0 and self._bytes + grown > self._max_bytes:
            if before is not None:
                before.heard = now
            return before is not None
        self._heard[identity] = heard
        self._bytes += grown
        return True

    def _put(self, family: Family, identity: Identity, points: list[Point], now: float, refused: Counter[str]) -> None:
        kept = self._families.get(family.name)
        if kept is None:
            kept = _Kept(family)
            if self._bytes + kept.size > self._max_bytes:
                refused[_FULL] += len(points)
                return
            self._families[family.name] = kept
            self._bytes += kept.size
        elif kept.family.kind != family.kind:
            kind = metrics_pb.MetricKind.Name(kept.family.kind).removeprefix("METRIC_KIND_").lower()
            refused[f"{family.name} is a {kind} already; give one of the two another name"] += len(points)
            return
        series = kept.sources.get(identity, {})
        for point in points:
            before = series.get(point.key)
            if before is not None and point.time < before.time:
                continue  # came late: what is kept is newer
            if point.data is None:
                self._drop(series, point.key)
                continue
            size = len(point.data) - (len(before.data) if before else -len(point.key) - SERIES_OVERHEAD_BYTES)
            if before is None and (self._series >= self._max_series or self._bytes + size > self._max_bytes):
                refused[_FULL] += 1
                continue
            series[point.key] = _Stored(now, point.time, point.data)
            self._series += before is None
            self._bytes += size
        if series:
            kept.sources[identity] = series

    def _sweep(self, now: float) -> None:
        """Forget what was not sent for a while: the process is gone, or does not measure it any more."""
        if now - self._swept < _SWEEP_SECONDS:
            return
        self._swept = now
        limit = now - FORGET_SECONDS
        for name, kept in list(self._families.items()):
            for identity, series in list(kept.sources.items()):
                for key in [key for key, stored in series.items() if stored.heard < limit]:
                    self._drop(series, key)
                if not series:
                    del kept.sources[identity]
            if not kept.sources:
                del self._families[name]
                self._bytes -= kept.size
        for identity, process in list(self._heard.items()):
            if process.heard < limit:
                del self._heard[identity]
                self._bytes -= process.size

    def _drop(self, series: dict[bytes, _Stored], key: bytes) -> None:
        stored = series.pop(key, None)
        if stored is not None:
            self._series -= 1
            self._bytes -= len(key) + len(stored.data) + SERIES_OVERHEAD_BYTES

    def _tell(self, refused: Counter[str], now: float) -> Refused:
        message = "; ".join(reason for reason, _ in refused.most_common(_REASONS))
        if not refused:
            return Refused(0, message)
        if now - self._complained >= _COMPLAIN_SECONDS:
            self._complained = now
            _log.warning("metrics refused: %s", message, extra={"points": refused.total()})
        return Refused(refused.total(), message)


def _size_of(texts: Iterable[str]) -> int:
    return HOLDER_OVERHEAD_BYTES + sum(map(len, texts))
