"""`/metrics`, `/metrics/json` and `/api/metrics/billing`: the latest metrics of all processes, as alerts keeps them."""

import asyncio
import gzip
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import accumulate, groupby
from typing import Any, Final

import grpc
import orjson
from prometheus_client import exposition
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response

from gateway import problem
from gateway.contract import Contract
from meterscope.alerts.v1 import metrics_service_pb2 as metrics_pb

BILLING: Final = "billing_"
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_METHOD: Final = "meterscope.alerts.v1.MetricsService.ReadMetrics"
_AWAY: Final = (
    "the alerts service, which keeps the metrics, does not answer; see /health, and ask again in some seconds"
)
# Scrapers give up after ten.
_READ_SECONDS: Final = 5.0
_GZIP_LEVEL: Final = 3
_KINDS: Final = {
    metrics_pb.METRIC_KIND_COUNTER: "counter",
    metrics_pb.METRIC_KIND_GAUGE: "gauge",
    metrics_pb.METRIC_KIND_HISTOGRAM: "histogram",
    metrics_pb.METRIC_KIND_INFO: "info",
}
# What OpenMetrics takes off a family's name and puts back at its samples'.
_ENDINGS: Final = {"counter": "_total", "info": "_info"}

Families = Sequence[metrics_pb.MetricFamily]
Render = Callable[[Families], bytes]


class Exposition:
    """The pages. They are written one at a time, outside the event loop: callers cannot make them a burden."""

    def __init__(self, served: Contract) -> None:
        self._method = served.methods[_METHOD]
        self._making = asyncio.Lock()

    async def metrics(self, request: Request) -> Response:
        """`/metrics`: everything, as Prometheus text or as OpenMetrics."""
        return await self._text(request, "")

    async def billing(self, request: Request) -> Response:
        """`/api/metrics/billing`: what begins with `billing_`, likewise."""
        return await self._text(request, BILLING)

    async def json(self, request: Request) -> Response:
        """`/metrics/json`: everything, as JSON."""
        return await self._answer(request, "", _json, "application/json")

    async def _text(self, request: Request, prefix: str) -> Response:
        if wants_openmetrics(request.headers.get("accept", "")):
            return await self._answer(request, prefix, _openmetrics, OPENMETRICS)
        return await self._answer(request, prefix, _prometheus, TEXT)

    async def _answer(self, request: Request, prefix: str, render: Render, content_type: str) -> Response:
        asked = metrics_pb.ReadMetricsRequest(name_prefix=prefix)
        headers = {"cache-control": "no-store", "vary": "accept, accept-encoding", "content-type": content_type}
        zips = takes_gzip(request.headers.get("accept-encoding", ""))
        if zips:
            headers["content-encoding"] = "gzip"
        try:
            messages = await request.state.backends.read(self._method, asked, seconds=_READ_SECONDS)
        except grpc.RpcError as error:
            return _problem(error).response(request.url.path)
        families = [family for message in messages for family in message.families]
        async with self._making:
            body = await asyncio.to_thread(_made, render, families, zips=zips)
        return Response(body, headers=headers)


def wants_openmetrics(accept: str) -> bool:
    """Say whether a caller prefers OpenMetrics 1.0 to Prometheus' text, which whoever names neither gets."""
    preferences = list(_preferences(accept))
    openmetrics_ = [
        each.quality
        for each in preferences
        if each.name == "application/openmetrics-text" and each.parameters.get("version", "1.0.0") == "1.0.0"
    ]
    text = [each.quality for each in preferences if each.name in {"text/plain", "text/*"}]
    return max(openmetrics_, default=0) > 0 and max(openmetrics_, default=0) >= max(text, default=0)


def takes_gzip(accept_encoding: str) -> bool:
    """Say whether a caller takes gzip."""
    qualities = {each.name: each.quality for each in _preferences(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0)) > 0


@dataclass(frozen=True)
class _Preference:
    name: str
    parameters: dict[str, str]
    quality: float


def _preferences(header: str) -> Iterator[_Preference]:
    """Read an Accept header (RFC 9110, 12.5)."""
    for part in header.split(","):
        name, *rest = (piece.strip() for piece in part.split(";"))
        parameters = {
            key.strip().lower(): value.strip().strip('"') for key, _, value in (p.partition("=") for p in rest)
        }
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        yield _Preference(name.lower(), parameters, quality)


def _problem(error: grpc.RpcError) -> problem.Problem:
    found = problem.from_rpc_error(error, "alerts", "")
    if found.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}:
        return replace(found, detail=_AWAY)
    return found


def _made(render: Render, families: Families, *, zips: bool) -> bytes:
    body = render(families)
    return gzip.compress(body, _GZIP_LEVEL, mtime=0) if zips else body


class _Found(Collector):
    """The families for the library's writers, one at a time."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        for name, parts in groupby(self._families, key=lambda family: family.name):
            yield _metric(name, list(parts))


def _prometheus(families: Families) -> bytes:
    # The names are plain already: escaping them would only cost time.
    return exposition.generate_latest(_Found(families), openmetrics.ALLOWUTF8)


def _openmetrics(families: Families) -> bytes:
    written: bytes = openmetrics.generate_latest(  # type: ignore[no-untyped-call]
        _Found(families), openmetrics.ALLOWUTF8
    )
    return written


def _metric(name: str, parts: Families) -> Metric:
    first = parts[0]
    kind = _KINDS[first.kind]
    metric = Metric(name.removesuffix(_ENDINGS.get(kind, "")), first.description, kind, first.unit)
    for part in parts:
        shared = dict(part.labels)
        for series in part.series:
            labels = {**shared, **series.labels}
            if series.WhichOneof("value") == "histogram":
                _add_histogram(metric, labels, series.histogram)
            else:
                metric.add_sample(name, labels, series.number)
    return metric


def _add_histogram(metric: Metric, labels: dict[str, str], histogram: metrics_pb.MetricHistogram) -> None:
    for bound, count in _buckets(histogram):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": _word(bound)}, count)
    metric.add_sample(f"{metric.name}_count", labels, histogram.count)
    if histogram.HasField("sum"):
        metric.add_sample(f"{metric.name}_sum", labels, histogram.sum)


def _buckets(histogram: metrics_pb.MetricHistogram) -> Iterator[tuple[float, int]]:
    """Yield each bucket's upper bound with the number of values up to it, the last one's being infinite."""
    yield from zip(histogram.bounds, accumulate(histogram.counts), strict=False)
    yield math.inf, histogram.count


def _json(families: Families) -> bytes:
    found = [
        {
            "name": name,
            "kind": _KINDS[parts[0].kind],
            "unit": parts[0].unit,
            "description": parts[0].description,
            "series": [_series(part, series) for part in parts for series in part.series],
        }
        for name, parts in ((name, list(parts)) for name, parts in groupby(families, key=lambda family: family.name))
    ]
    return orjson.dumps({"families": found})


def _series(family: metrics_pb.MetricFamily, series: metrics_pb.MetricSeries) -> dict[str, Any]:
    content: dict[str, Any] = {"labels": {**family.labels, **series.labels}}
    if series.HasField("time"):
        content["time"] = series.time.ToJsonString()
    if series.HasField("start_time"):
        content["start_time"] = series.start_time.ToJsonString()
    if series.WhichOneof("value") == "histogram":
        histogram = series.histogram
        content["count"] = histogram.count
        if histogram.HasField("sum"):
            content["sum"] = _number(histogram.sum)
        content["buckets"] = [{"le": _number(bound), "count": count} for bound, count in _buckets(histogram)]
    else:
        content["value"] = _number(series.number)
    return content


def _number(value: float) -> float | str:
    """Return a number as JSON can hold it: what is not finite as Prometheus' word for it."""
    return value if math.isfinite(value) else _word(value)


def _word(value: float) -> str:
    """Return a number as Prometheus writes it: `0.5`, `1.0`, `+Inf`."""
    word: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return word
