"""A PostgreSQL that stands still: alive, and saying nothing."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from services.kit.embedded import EmbeddedPostgres


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop all processes of a server (SIGSTOP), and let them go on at the end of the block.

    The kernel goes on to take connections and to acknowledge what is sent.
    """
    # The first one begins the others.
    os.kill(server.pid, signal.SIGSTOP)
    stopped = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in [*stopped, server.pid]:
            os.kill(pid, signal.SIGCONT)
