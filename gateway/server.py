"""The HTTP server around the application: uvicorn on a socket of ours."""

import logging
import signal
import socket
from types import FrameType
from typing import Final

import uvicorn

from gateway import app, listening
from gateway.settings import Settings

_KEEP_ALIVE_SECONDS: Final = 65
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


class Server:
    """One gateway process's port."""

    def __init__(self, settings: Settings) -> None:
        """Build the application and listen.

        Raises:
            BindError: the address is not loopback or cannot be had.
            ContractError: an annotation of the contract cannot be served.
        """
        self._socket: socket.socket = listening.listen(settings.address)
        config = uvicorn.Config(
            app.build(settings),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.kit.grace.total_seconds()),
        )
        self._server = uvicorn.Server(config)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def run(self) -> None:
        """Serve until `stop`, in the calling thread; running requests get the grace time."""
        _log.info("listening", extra={"address": "{}:{}".format(*self._socket.getsockname()[:2])})
        self._server.run(sockets=[self._socket])
        _log.info("stopped")

    def run_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT. Call it in the main thread."""

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        # uvicorn stops at a signal too, then raises it again for whoever handled it before: without a handler of ours
        # that would end the process by the signal rather than with 0.
        for number in _SIGNALS:
            signal.signal(number, on_signal)
        self.run()

    def stop(self) -> None:
        """Ask it to stop, from any thread."""
        self._server.should_exit = True
