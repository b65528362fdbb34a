"""Receives the webhooks that the demo's alerts cause: verifies each signature (Standard Webhooks), keeps each once."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import orjson
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, Tracer
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

FILE: Final = "demo-webhooks.jsonl"
PATH: Final = "/alerts"
_LARGEST_BODY: Final = 1 << 20


@dataclass(frozen=True)
class Received:
    """A verified webhook: its id (`webhook-id`, the notification's) and its payload."""

    id: str
    payload: dict[str, Any]


class Receiver:
    """An HTTP server on loopback. What it receives is kept in the data folder, so that a further run knows it.

    Args:
        port: where to listen; any free port when 0.
        secret: `whsec_…`.
        data_dir: where received webhooks are written down.
        tracer: makes a server span of each call.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, *, port: int, secret: str, data_dir: Path, tracer: Tracer) -> None:
        self._webhook = Webhook(secret)
        self._file = data_dir / FILE
        self._tracer = tracer
        self._lock = threading.Lock()
        self._seen = {webhook.id for webhook in self.received()}
        self.refused = 0
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """Its address for a channel."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def received(self) -> list[Received]:
        """Return what was received in this run and in earlier ones, oldest first."""
        with self._lock:
            lines = self._file.read_bytes().splitlines() if self._file.exists() else []
        return [Received(**orjson.loads(line)) for line in lines]

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Verify a webhook and write it down. Returns the HTTP status to answer."""
        with self._tracer.start_as_current_span(
            f"POST {PATH}",
            context=propagate.extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "POST", "url.path": PATH},
        ) as span:
            status = self._keep(body, headers)
            span.set_attribute("http.response.status_code", status)
            return status

    def _keep(self, body: bytes, headers: dict[str, str]) -> int:
        try:
            self._webhook.verify(body, headers)
            payload = json.loads(body)
        except (WebhookVerificationError, ValueError):
            with self._lock:
                self.refused += 1
            return 401
        webhook_id = headers["webhook-id"]
        with self._lock:
            # A sender that lost our answer sends again, under the same id.
            if webhook_id not in self._seen:
                self._seen.add(webhook_id)
                with self._file.open("ab") as file:
                    file.write(orjson.dumps({"id": webhook_id, "payload": payload}) + b"\n")
        return 204

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        super().__init__(address, _Handler)
        self.receiver = receiver


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if self.path != PATH or length > _LARGEST_BODY:
            status = 404 if self.path != PATH else 413
            self.close_connection = True
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = self.server.receiver.take(self.rfile.read(length), headers)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing: the demo tells its own story."""
