"""Prints `.env.example`: every variable that any process reads, from where the settings declare it."""

import dataclasses
import importlib
import sys
import typing
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from services.kit.config import KitSettings

SECTIONS: Final = {
    "every process": (KitSettings, ""),
    "usage": ("services.usage.settings", "Settings"),
    "billing": ("services.billing.settings", "Settings"),
    "payments": ("services.payments.settings", "Settings"),
    "alerts": ("services.alerts.settings", "Settings"),
    "gateway": ("gateway.settings", "Settings"),
}
COMPOSE: Final = """
# --- docker-compose.yml
# It passes on what is set above, but for addresses, folders and schemas, which are its own, and what is read instead of
# several. Beside that OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_BSP_MAX_QUEUE_SIZE,
# OTEL_BLRP_MAX_QUEUE_SIZE, OTEL_SDK_DISABLED, and these:
# how long the collector waits for a trace's spans before it decides whether to keep it
#COLLECTOR_DECISION_WAIT=30s
# per cent of the traces that it keeps for no reason of their own
#COLLECTOR_SAMPLED_PERCENT=10
# its name among several
#COLLECTOR_INSTANCE=collector
# what goes before the paths of runbooks in alerts, with a slash at its end
#RUNBOOKS_URL=
# Set these three.
METERSCOPE_SERVICE_TOKEN=
POSTGRES_PASSWORD=
VALKEY_PASSWORD=
"""


def declared(settings: type[Any]) -> Iterator[tuple[Sequence[str], str, str]]:
    """Yield a settings class's variables: names, default as it would be written, and what it is for."""
    hints = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        spec = field.metadata.get("variable")
        if spec is None:
            if dataclasses.is_dataclass(hints[field.name]) and hints[field.name] is not KitSettings:
                yield from declared(typing.cast("type[Any]", hints[field.name]))
            continue
        yield spec.names, written(field.default), spec.help


def written(default: Any) -> str:
    """Return a default as one would set it."""
    if default in (dataclasses.MISSING, None):
        return ""
    if isinstance(default, timedelta):
        return f"{default.total_seconds():.6f}".rstrip("0").rstrip(".")
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default)


def render() -> str:
    """Return the whole file."""
    parts = [
        "# Every variable that Meterscope reads. What is commented out shows its default; `meterscope up` needs none of it.",
        "# The standard OTEL_* variables of OpenTelemetry's SDK count as well.",
    ]
    seen = set()
    # What is read where a variable of its own is not set; several processes may have it.
    instead: dict[str, list[str]] = {}
    for title, (where, name) in SECTIONS.items():
        settings = where if isinstance(where, type) else getattr(importlib.import_module(where), name)
        parts.append(f"\n# --- {title}")
        for (variable, *others), default, purpose in declared(settings):
            for other in others:
                instead.setdefault(other, []).append(variable)
            if variable not in seen:
                seen.add(variable)
                shown = "" if variable == "APP_VERSION" else default
                parts.append(f"# {purpose}\n#{variable}={shown}")
    parts.append("\n# --- instead of several")
    parts += [
        f"# what is read for each of {', '.join(own)} that is not set\n#{other}=" for other, own in instead.items()
    ]
    return "\n".join(parts) + "\n" + COMPOSE


if __name__ == "__main__":
    sys.stdout.write(render())
