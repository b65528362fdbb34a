"""Waits for what happens elsewhere, with a bound."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from meterscope.demo.errors import DemoFailed

T = TypeVar("T")

_EVERY_SECONDS: Final = 0.05


def until(what: str, probe: Callable[[], T | None], *, seconds: float) -> T:
    """Call `probe` until it returns something true, and return that.

    Raises:
        DemoFailed: it does not within `seconds`; the text names `what`.
    """
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:g} s")
        time.sleep(_EVERY_SECONDS)
    return found
