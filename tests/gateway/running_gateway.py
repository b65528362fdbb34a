"""A gateway of the test's own, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.server import Server
from gateway.settings import Settings


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the base URL."""
    server = Server(settings)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()
        thread.join()
