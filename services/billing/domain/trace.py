"""Where traces are shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TraceLinks:
    """Addresses of traces.

    Attributes:
        jaeger_url: base address of Jaeger; None where no trace store is configured.
    """

    jaeger_url: str | None

    def to(self, trace_id: str) -> str:
        """Return the address of a trace, empty where none is."""
        return f"{self.jaeger_url.rstrip('/')}/trace/{trace_id}" if self.jaeger_url and trace_id else ""
