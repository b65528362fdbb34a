"""Reads spans from a span file (JSON lines, `METERSCOPE_TRACE_FILE`) or from Jaeger, and draws a trace as a tree."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
from rich.text import Text
from rich.tree import Tree

# Attributes that are drawn beside a span, and how.
_SHOWN: Final = {
    "meterscope.batch.events": "{} events",
    "http.response.status_code": "status {}",
    "payment.outcome": "{}",
    "rpc.response.status_code": "{}",
}
_STYLES: Final = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")


@dataclass(frozen=True, slots=True)
class Span:
    """One span.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_id: 16 hex digits, empty on a root.
        name: what was done.
        kind: `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER` or `INTERNAL`.
        service: the process that did it.
        start: when it began.
        end: when it ended.
        is_error: whether it failed.
        error: what it says about its failure.
        attributes: as recorded.
        links: the traces that it points to.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    start: datetime
    end: datetime
    is_error: bool
    error: str
    attributes: Mapping[str, Any]
    links: tuple[str, ...]


@dataclass(slots=True)
class Node:
    """A span with what it caused."""

    span: Span
    children: list["Node"] = field(default_factory=list)

    def walk(self) -> Iterator[Span]:
        """Return this span and all below it, parents first."""
        yield self.span
        for child in self.children:
            yield from child.walk()


def read(path: Path) -> Iterator[Span]:
    """Read a span file. A last line that is still being written is left out.

    Raises:
        ValueError: a line is no span as the OpenTelemetry SDK writes them (`ReadableSpan.to_json`).
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            if line.strip():
                try:
                    yield _span(orjson.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"{path}:{number} is no span: {error!r}") from error


def from_jaeger(trace: Mapping[str, Any]) -> list[Span]:
    """Read one trace as Jaeger's query API answers it (an element of `data` of /api/traces/ID).

    Raises:
        ValueError: it is none.
    """
    try:
        names = {key: process["serviceName"] for key, process in trace["processes"].items()}
        return [_jaeger_span(fields, names) for fields in trace["spans"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no trace as Jaeger answers it: {error!r}") from error


def of_trace(spans: Iterable[Span], trace_id: str) -> list[Span]:
    """Return the spans of one trace, in the order of their beginning; `trace_id` may be shortened to a unique start."""
    wanted = trace_id.lower().removeprefix("0x")
    found = [span for span in spans if span.trace_id.startswith(wanted)]
    return sorted(found, key=lambda span: span.start)


def roots(spans: Sequence[Span]) -> list[Node]:
    """Arrange one trace's spans as trees. A span whose parent is not among them is a root."""
    nodes = {span.span_id: Node(span) for span in spans}
    tops: list[Node] = []
    for span in sorted(spans, key=lambda span: span.start):
        parent = nodes.get(span.parent_id)
        (parent.children if parent else tops).append(nodes[span.span_id])
    return tops


def is_step(node: Node) -> bool:
    """Say whether a span tells something that its neighbours do not.

    Statements of a database do not, nor does a call's client side where its server side is drawn, nor the sending of a
    job where its run is drawn. Errors always do.
    """
    span = node.span
    if span.is_error or not span.parent_id:
        return True
    if span.kind == "CLIENT" and "rpc.method" in span.attributes:
        return not any(child.span.name == span.name for child in node.children)
    return "db.system.name" not in span.attributes and (span.kind != "PRODUCER" or not node.children)


def draw(spans: Sequence[Span], *, alike: int = 2, is_shown: Callable[[Node], bool] = is_step) -> Tree:
    """Draw one trace as a tree: service, span, duration, errors.

    Args:
        spans: the spans of one trace.
        alike: how often siblings that look alike are drawn; the rest is counted.
        is_shown: spans that are not shown have their children drawn in their place.
    """
    total = _duration(min(span.start for span in spans), max(span.end for span in spans))
    services = {span.service: _STYLES[index % len(_STYLES)] for index, span in enumerate(_first_by_service(spans))}
    title = Text.assemble(
        ("trace ", "bold"),
        (spans[0].trace_id, "bold"),
        (f"  {len(spans)} spans, {len(services)} processes, {total}", "dim"),
    )
    tree = Tree(title, guide_style="dim")
    _grow(tree, _visible(roots(spans), is_shown), services, alike)
    return tree


def _grow(tree: Tree, nodes: Sequence[Node], services: Mapping[str, str], alike: int) -> None:
    seen: dict[frozenset[str], int] = defaultdict(int)
    left_out: dict[str, int] = defaultdict(int)
    for node in nodes:
        shape = _shape(node)
        seen[shape] += 1
        if seen[shape] > alike:
            left_out[node.span.name] += 1
            continue
        _grow(tree.add(_label(node.span, services)), node.children, services, alike)
    for name, count in left_out.items():
        tree.add(Text(f"… and {count} more {name}", style="dim italic"))


def _visible(nodes: Sequence[Node], is_shown: Callable[[Node], bool]) -> list[Node]:
    found: list[Node] = []
    for node in nodes:
        children = _visible(node.children, is_shown)
        found += [Node(node.span, children)] if is_shown(node) else children
    return found


def _shape(node: Node) -> frozenset[str]:
    # Without order: jobs that run side by side end in any.
    return frozenset(f"{span.service} {span.name} {_details(span)} {span.is_error}" for span in node.walk())


def _first_by_service(spans: Sequence[Span]) -> list[Span]:
    return list({span.service: span for span in reversed(spans)}.values())[::-1]


def _label(span: Span, services: Mapping[str, str]) -> Text:
    label = Text.assemble(
        (span.service, services[span.service]), " ", _short(span.name), ("  " + _duration(span.start, span.end), "dim")
    )
    if details := _details(span):
        label.append(f"  {details}", style="italic")
    if span.is_error:
        label.append(f"  ✗ {span.error}".rstrip(), style="bold red")
    if span.links:
        label.append("  ↪ " + ", ".join(link[:8] for link in span.links), style="dim")
    return label


def _details(span: Span) -> str:
    found = [(form, span.attributes.get(name)) for name, form in _SHOWN.items()]
    return ", ".join(form.format(value) for form, value in found if value not in {None, "OK"})


def _short(name: str) -> str:
    """Leave the package out of a method's name: `meterscope.usage.v1.EventService/IngestEvents`."""
    return name.rpartition("/")[0].rpartition(".")[2] + "/" + name.rpartition("/")[2] if name.count(".") > 1 else name


def _duration(start: datetime, end: datetime) -> str:
    took = end - start
    if took < timedelta(seconds=1):
        return f"{took / timedelta(milliseconds=1):.1f} ms"
    return f"{took / timedelta(seconds=1):.2f} s"


def _span(fields: Mapping[str, Any]) -> Span:
    status = fields["status"]
    return Span(
        trace_id=_hex(fields["context"]["trace_id"]),
        span_id=_hex(fields["context"]["span_id"]),
        parent_id=_hex(fields["parent_id"] or ""),
        name=fields["name"],
        kind=fields["kind"].rpartition(".")[2],
        service=fields["resource"]["attributes"].get("service.name", "unknown"),
        start=datetime.fromisoformat(fields["start_time"]),
        end=datetime.fromisoformat(fields["end_time"]),
        is_error=status["status_code"] == "ERROR",
        error=status.get("description") or "",
        attributes=fields["attributes"] or {},
        links=tuple(_hex(link["context"]["trace_id"]) for link in fields["links"] or ()),
    )


def _jaeger_span(fields: Mapping[str, Any], names: Mapping[str, str]) -> Span:
    tags = {tag["key"]: tag["value"] for tag in fields["tags"] or ()}
    references = fields.get("references") or ()
    parents = [each for each in references if each["refType"] == "CHILD_OF" and each["traceID"] == fields["traceID"]]
    start = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=fields["startTime"])
    return Span(
        trace_id=fields["traceID"],
        span_id=fields["spanID"],
        parent_id=parents[0]["spanID"] if parents else "",
        name=fields["operationName"],
        kind=str(tags.get("span.kind", "internal")).upper(),
        service=names[fields["processID"]],
        start=start,
        end=start + timedelta(microseconds=fields["duration"]),
        is_error=tags.get("otel.status_code") == "ERROR" or tags.get("error") in {True, "true"},
        error=str(tags.get("otel.status_description", "")),
        attributes=tags,
        links=tuple(each["traceID"] for each in references if each not in parents),
    )


def _hex(number: str) -> str:
    return number.removeprefix("0x")
