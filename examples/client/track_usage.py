"""Meter your own program: each call of `render` is an event of the customer who asked for it.

Start `meterscope up`, then run `.venv/bin/python examples/client/track_usage.py`. The events' customer has to exist
(`POST /v1/customers` with `external_key` `acme`), and a meter has to count the type `report.rendered`; until then
they are held in quarantine, and nothing is lost.
"""

import logging
import sys
from collections.abc import Sequence
from decimal import Decimal

from meterscope import Client, Result
from meterscope.client.client import DEFAULT_ADDRESS

_log = logging.getLogger("track_usage")


def render(client: Client, pages: int) -> None:
    """Do the work, then say how much it was."""
    client.track(
        "report.rendered",
        customer_key="acme",
        quantities={"pages": pages, "seconds": Decimal("0.25") * pages},
        attributes={"format": "pdf"},
    )


def tell(results: Sequence[Result]) -> None:
    """Say what became of each event."""
    for result in results:
        _log.info("%s %s %s", result.event.id, result.outcome.name, result.message)


def main(address: str = DEFAULT_ADDRESS) -> None:
    """Render three reports. Leaving the block delivers what is queued, or raises `Undelivered` with the events."""
    with Client(address, source="examples/track_usage", on_results=tell) as client:
        for pages in (3, 12, 1):
            render(client, pages)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main(*sys.argv[1:])
