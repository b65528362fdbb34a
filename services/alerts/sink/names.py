"""Names as Prometheus gives them to what comes by OTLP (`UnderscoreEscapingWithSuffixes`, its default).

The rules are those of prometheus/otlptranslator 1.0, which Prometheus' own OTLP receiver uses: whoever scrapes the
gateway finds what whoever sends by a collector finds.
"""

import re
from functools import lru_cache
from typing import Final

_UNITS: Final = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
_PER: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_BETWEEN_TOKENS: Final = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_OF_A_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")


@lru_cache(maxsize=4096)
def metric_name(name: str, unit: str, *, is_counter: bool, is_gauge: bool) -> str:
    """Return Prometheus' name of a metric, empty if none is left of it.

    Args:
        name: such as `http.server.request.duration`.
        unit: in UCUM, such as `s`.
        is_counter: it only grows: `_total` is appended.
        is_gauge: it is no sum: `_ratio` is appended where the unit is `1`.
    """
    tokens = [token for token in _BETWEEN_TOKENS.split(name) if token]
    if not tokens:
        return ""
    tokens += [suffix for suffix in _unit_tokens(unit) if suffix not in tokens]
    ending = "total" if is_counter else "ratio" if is_gauge and unit == "1" else ""
    if ending:
        tokens = [*(token for token in tokens if token != ending), ending]
    joined = "_".join(tokens)
    return f"_{joined}" if joined[0].isdigit() else joined


@lru_cache(maxsize=4096)
def unit_of(name: str, unit: str, *, is_counter: bool) -> str:
    """Return the unit that OpenMetrics may name with a metric: the one that its name ends with, empty otherwise."""
    word = "_".join(_unit_tokens(unit))
    base = name.removesuffix("_total") if is_counter else name
    return word if word and base.endswith(f"_{word}") else ""


@lru_cache(maxsize=4096)
def label_name(attribute: str) -> str:
    """Return Prometheus' name of an attribute's label, empty if none is left of it."""
    name = _NOT_OF_A_LABEL.sub("_", attribute)
    if not name.strip("_"):
        return ""
    if name[0].isdigit():
        return f"key_{name}"
    return f"key{name}" if name[0] == "_" != name[1] else name


def _unit_tokens(unit: str) -> list[str]:
    """Return what a unit appends: `seconds`; `bytes`, `per_second`; nothing for what stands in braces."""
    main, _, per = (part.strip() for part in unit.partition("/"))
    tokens = []
    if main and not set(main) & set("{}"):
        tokens.append(_clean(_UNITS.get(main, main)))
    if per and not set(per) & set("{}"):
        word = _clean(_PER.get(per, per)).strip("_")
        tokens.append(f"per_{word}" if word else "")
    return [token for token in tokens if token]


def _clean(unit: str) -> str:
    return _BETWEEN_TOKENS.sub("_", unit).removeprefix("_")
