"""What a PromQL query asks for, and in which form."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import promql_parser

AGGREGATIONS = {"sum", "max", "min", "avg", "count", "group"}
# They leave the labels as they are.
PICKING = {"topk", "bottomk"}
# Grafana writes a duration there before it asks.
DURATIONS = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}


@dataclass(frozen=True)
class Asked:
    """One selector of a query.

    Attributes:
        name: the series'.
        labels: those that it is selected by.
        within: what is around it, from the outermost: functions and aggregations by name, operators as they are.
        grouped: all labels that what is around it groups by.
        kept: of these, those that the answer has.
    """

    name: str
    labels: tuple[str, ...]
    within: tuple[str, ...]
    grouped: tuple[str, ...]
    kept: tuple[str, ...]


def selectors(query: str) -> list[Asked]:
    """Every selector of a query with Grafana's variables."""
    for variable, duration in DURATIONS.items():
        query = query.replace(f"[{variable}]", f"[{duration}]")
    return list(_walk(promql_parser.parse(query), Asked("", (), (), (), ())))


def variables(text: str) -> set[str]:
    """Names of Grafana's variables in a text."""
    return set(re.findall(r"\$\{?([a-z_][a-z0-9_]*)\}?", text))


def _walk(node: object, around: Asked) -> Iterator[Asked]:
    match node:
        case promql_parser.VectorSelector():
            labels = tuple(matcher.name for matcher in node.matchers.matchers)
            yield replace(around, name=node.name or "", labels=labels)
        case promql_parser.MatrixSelector():
            yield from _walk(node.vector_selector, around)
        case promql_parser.SubqueryExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from _walk(node.expr, around)
        case promql_parser.Call():
            for argument in node.args:
                yield from _walk(argument, _within(around, node.func.name))
        case promql_parser.AggregateExpr():
            yield from _walk(node.expr, _grouped(around, node))
        case promql_parser.BinaryExpr():
            for side in (node.lhs, node.rhs):
                yield from _walk(side, _within(around, str(node.op)))
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            raise AssertionError(f"not known: {node!r}")


def _within(around: Asked, what: str) -> Asked:
    return replace(around, within=(*around.within, what))


def _grouped(around: Asked, node: promql_parser.AggregateExpr) -> Asked:
    inner = _within(around, str(node.op))
    if str(node.op) in PICKING:
        return inner
    labels = tuple(node.modifier.labels) if node.modifier else ()
    is_outermost = not set(around.within) & AGGREGATIONS
    return replace(inner, grouped=(*around.grouped, *labels), kept=labels if is_outermost else around.kept)
