"""A receiver of Sentry's envelope format on loopback: what a process sends is taken apart and kept."""

import gzip
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass
class Receiver:
    """Answers `status`, but not before `may_answer` is set.

    Attributes:
        items: (type, payload) of every envelope, in the order in which they came.
        requests: how many came, answered or not.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    items: list[tuple[str, Any]] = field(default_factory=list)
    requests: int = 0
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"receiver": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def dsn(self) -> str:
        return f"http://f00ba4key@127.0.0.1:{self._server.server_address[1]}/1"

    def of(self, kind: str) -> list[Any]:
        return [payload for found, payload in list(self.items) if found == kind]

    def error(self, message: str) -> dict[str, Any]:
        """The one event of an exception with this in its message."""
        (event,) = [event for event in self.of("event") if message in exception(event)["value"]]
        found: dict[str, Any] = event
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def exception(event: dict[str, Any]) -> dict[str, Any]:
    """The outermost exception of an event; one without a value where it has none."""
    values = event.get("exception", {}).get("values") or [{"value": ""}]
    found: dict[str, Any] = values[-1]
    return found


def items(envelope: bytes) -> list[tuple[str, Any]]:
    """Take an envelope apart: a line of JSON, then for each item a line of JSON and its payload."""
    found = []
    _, _, rest = envelope.partition(b"\n")
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        if "length" in header:
            payload, rest = rest[: header["length"]], rest[header["length"] + 1 :]
        else:
            payload, _, rest = rest.partition(b"\n")
        found.append((header["type"], json.loads(payload)))
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def do_POST(self) -> None:
        receiver = self.receiver
        receiver.requests += 1
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/api/1/envelope/"
        assert "sentry_key=f00ba4key" in self.headers["x-sentry-auth"]
        receiver.items += items(body)
        receiver.may_answer.wait(60)
        self.send_response(receiver.status)
        for name, value in receiver.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
