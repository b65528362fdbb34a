"""A TCP link that pauses before it passes a message on: transactions that are slow between their steps, for real."""

import contextlib
import random
import socket
import threading
import time
from urllib.parse import urlsplit


class SlowLink:
    """Listens on a port of its own and passes everything on to the host and port of a URL."""

    def __init__(self, url: str, *, longest_pause: float, shortest_pause: float = 0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self.pauses = (shortest_pause, longest_pause)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{port}/")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            # A listener wakes up from accept() when it is shut down, not when it is closed.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_slow: bool = True) -> None:  # noqa: FBT001, FBT002 - a thread's argument
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if is_slow:
                    time.sleep(random.uniform(*self.pauses))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
