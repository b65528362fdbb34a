"""Which measurements may become exemplars."""

from typing import Final

from opentelemetry.context import Context, get_current
from opentelemetry.sdk.metrics import ExemplarFilter
from opentelemetry.trace import Span
from opentelemetry.trace.propagation import _SPAN_KEY
from opentelemetry.util.types import Attributes

# On a span: its trace is kept, whatever the collector's sampling would do.
KEEP: Final = "meterscope.keep"
# The collector keeps traces of errors and of this many seconds by its own policies: what is measured of such a call
# leads to its trace.
SLOW_SECONDS: Final = 1.0


class KeptSpans(ExemplarFilter):
    """Takes exemplars from kept spans alone: of other traces most are not kept, and would lead nowhere."""

    def should_sample(
        self,
        value: float,  # noqa: ARG002 - the base class's
        time_unix_nano: int,  # noqa: ARG002 - likewise
        attributes: Attributes,  # noqa: ARG002 - likewise
        context: Context,
    ) -> bool:
        """Say whether a measurement may become an exemplar."""
        return is_kept(context)


def keep_if_worse(span: Span, seconds: float, *, is_fault: bool) -> None:
    """Mark a span that ends as one to be kept, where its call failed by a fault of ours or was slow."""
    if is_fault or seconds >= SLOW_SECONDS:
        span.set_attribute(KEEP, True)


def is_kept(context: Context | None = None) -> bool:
    """Say whether the current span, or that of a context, is marked to be kept."""
    # Not by get_current_span and the span's own property: each measurement asks, and they take three times as long.
    span = (get_current() if context is None else context).get(_SPAN_KEY)
    # A span that is not recorded has no attributes.
    marks = getattr(span, "_attributes", None)
    return marks is not None and marks.get(KEEP) is True
