"""A TCP link that pauses before it passes a message on: transactions that are slow between their steps, for real."""

import contextlib
import random
import socket
import threading
import time
from urllib.parse import urlsplit


class SlowLink:
    """Listens on a port of its own and passes everything on to the host and port of a URL."""

    def __init__(self, url: str, *, longest_pause: float) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._longest = longest_pause
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
                threading.Thread(target=self._pass_on, args=(near, far, self._longest), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(far, near, 0), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, longest: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if longest:
                    time.sleep(random.uniform(0, longest))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
