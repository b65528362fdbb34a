"""A real HTTP server that takes webhooks, remembers them, and answers as told."""

import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads(self.body)
        return parsed

    @property
    def alert_id(self) -> str:
        return str(self.json["data"]["id"])


@dataclass(frozen=True)
class Answer:
    """What to say. `before` runs when the request has been read and is not answered yet."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    before: Callable[[], None] = lambda: None


class Receiver:
    """Answers 204 on every path, but for the answers that were queued for it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._received: dict[str, list[Received]] = defaultdict(list)
        self._answers: dict[str, deque[Answer]] = defaultdict(deque)
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = receiver._take(Received(self.path, headers, body))
                answer.before()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def port(self) -> int:
        return self._server.server_port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def will_answer(self, path: str, *answers: Answer) -> None:
        self._answers[path].extend(answers)

    def received(self, path: str) -> list[Received]:
        return list(self._received[path])

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, request: Received) -> Answer:
        self._received[request.path].append(request)
        queued = self._answers[request.path]
        return queued.popleft() if queued else Answer(204)
