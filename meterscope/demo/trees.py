"""The two traces that tell the demo's story, as trees, and what joins them."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from meterscope import traces
from meterscope.demo import watching
from meterscope.demo.chapter import Chapter
from meterscope.traces import Span

# The processes write their spans every 200 ms.
_WAIT_SECONDS: Final = 4.0
_EVERY_SECONDS: Final = 0.3
RECEIVER: Final = "webhook-receiver"


def show(chapter: Chapter, console: Console) -> None:
    """Print the trace of the crossed limit, that of the bill run, and the one that the explained line points to."""
    crossed = chapter.watch.of(watching.THRESHOLD)[0].trace_id
    samples = list(chapter.explanation.line.sample_trace_ids)
    spans = _read(chapter.trace_file, {crossed, chapter.bill_run_trace})
    _tree(console, "From an access log to a webhook: the batch that crossed the limit", spans, crossed)
    _tree(console, "From the bill run to the money and the notification", spans, chapter.bill_run_trace)
    console.print()
    console.print(
        f"[bold]What joins them[/]: the invoice line above, of the bill run's trace, names {len(samples)} traces of calls "
        "that brought its requests in, at most one a day.",
        highlight=False,
    )
    if crossed in samples:
        console.print("One of them is the first tree.")
    elif samples:
        _tree(console, "The first of them", spans, samples[0])


def _tree(console: Console, title: str, spans: Sequence[Span], trace_id: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    own = traces.of_trace(spans, trace_id) if trace_id else []
    if own:
        console.print(traces.draw(own, alike=1))
    else:
        console.print(f"[dim]its spans are not in the span file (trace {trace_id or 'unknown'})[/]")


def _read(file: Path, awaited: set[str]) -> list[Span]:
    """Read the spans, once the awaited traces have come to the webhook and nothing is added to them any more."""
    deadline = time.monotonic() + _WAIT_SECONDS
    size = -1
    while True:
        spans = list(traces.read(file)) if file.exists() else []
        arrived = {span.trace_id for span in spans if span.service == RECEIVER}
        own = sum(1 for span in spans if span.trace_id in awaited)
        if (awaited <= arrived and own == size) or time.monotonic() > deadline:
            return spans
        size = own
        time.sleep(_EVERY_SECONDS)
