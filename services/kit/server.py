"""A gRPC server with everything that each of ours has: health, reflection, limits, keepalive, graceful stop.

Several processes may serve the same port (SO_REUSEPORT): that is how a service is scaled over cores, one for each.
"""

import gc
import ipaddress
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Final

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.kit.affinity import OneCore
from services.kit.config import KitSettings
from services.kit.interceptors import Authenticate, Entry, service_token
from services.kit.streams import Streams

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
_WATCH_EVERY_SECONDS: Final = 2.0
_GARBAGE_AFTER: Final = 50_000  # objects more than were freed; Python's own default is 700
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_log = logging.getLogger(__name__)


class BindError(Exception):
    """The server cannot listen where it was told to. The message says why and what to do."""


class OpenAddress(BindError):
    """The settings ask for an address that other machines reach, or for none at all."""


class Server:
    """One server process's port."""

    def __init__(
        self,
        address: str,
        register: Callable[[grpc.Server], None],
        *,
        service_names: Sequence[str],
        settings: KitSettings,
        check: Callable[[], bool] | None = None,
        on_stop: Callable[[], None] | None = None,
        authenticate: Authenticate | None = None,
    ) -> None:
        """Prepare; nothing listens before `start`.

        Args:
            address: host:port; port 0 takes a free one.
            register: adds the servicers.
            service_names: full names, for health and reflection.
            settings: threads, grace, service token.
            check: says whether the service can do its work (its database answers); asked every 2 s.
            on_stop: called when the last call has ended.
            authenticate: who may call; by default the holders of the service token.

        Raises:
            OpenAddress: no host:port, or an address that is not loopback without a service token.
        """
        _refuse_open_address(address, settings)
        self.address = address
        self._settings = settings
        self._service_names = tuple(service_names)
        self._check = check
        self._on_stop = on_stop
        self._health = health.HealthServicer()
        self._is_serving = True
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._streams = Streams(idle=settings.stream_idle)
        self._server = grpc.server(
            ThreadPoolExecutor(settings.grpc_threads, thread_name_prefix="grpc"),
            interceptors=[
                Entry(
                    authenticate or service_token(settings.service_token), self._streams, _methods(self._service_names)
                )
            ],
            options=_OPTIONS,
        )
        register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*self._service_names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    def start(self) -> int:
        """Listen and return the port.

        Raises:
            BindError: the address cannot be had.
        """
        try:
            port = self._server.add_insecure_port(self.address)
        except RuntimeError:
            port = 0
        if port == 0:
            raise BindError(
                f"cannot listen on {self.address}: in use, or not an address of this machine; name another one"
            )
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        self._server.start()
        self._report(serving=self._check is None or self._check())
        self._watcher.start()
        _log.info("listening", extra={"address": self.address})
        return port

    def stop(self) -> None:
        """Refuse new calls, let the running ones end (bounded by the grace setting), then close.

        Streams that would go on for ever end with UNAVAILABLE once they have answered what they are at work on.
        """
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(self._settings.grace.total_seconds())
        self._streams.stop()
        stopped.wait()
        # It may be asking the database that is closed next.
        if self._watcher.is_alive():
            self._watcher.join(_WATCH_EVERY_SECONDS)
        if self._on_stop is not None:
            self._on_stop()

    def serve_until_signal(self) -> None:
        """Start, wait for SIGTERM or SIGINT, stop."""
        stop = threading.Event()

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        self.start()
        # What was imported stays for good, and a batch of thousands of events is no sign of garbage: the collector
        # took a twentieth of ingest's processor time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE_AFTER)
        one_core = OneCore()
        if self._settings.cpu_affinity == "one":
            one_core.start()
        stop.wait()
        one_core.stop()
        _log.info("stopping", extra={"address": self.address})
        self.stop()

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_EVERY_SECONDS):
            self._report(serving=self._check is None or self._check())
            self._streams.cancel_stalled()

    def _report(self, *, serving: bool) -> None:
        if serving != self._is_serving:
            self._is_serving = serving
            _log.log(
                logging.INFO if serving else logging.WARNING,
                "works again" if serving else "cannot work: what it needs does not answer",
                extra={"address": self.address},
            )
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._service_names):
            self._health.set(name, state)


def _methods(service_names: Sequence[str]) -> list[str]:
    """Return the methods of services as `package.Service/Method`."""
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in service_names]
    return [f"{service.full_name}/{method.name}" for service in services for method in service.methods]


def _refuse_open_address(address: str, settings: KitSettings) -> None:
    host = host_of(address)
    if settings.service_token is None and not is_loopback(host):
        raise OpenAddress(
            f"{address} can be reached from other machines and no METERSCOPE_SERVICE_TOKEN is set: "
            "listen on 127.0.0.1, or set the token on every service"
        )


def host_of(address: str) -> str:
    """Return the host of host:port, an IPv6 address without its brackets.

    Raises:
        OpenAddress: it is no host:port.
    """
    host, _, port = address.rpartition(":")
    if not host.strip("[]") or not port.isdecimal():
        raise OpenAddress(f"{address!r} is no host:port; name one such as 127.0.0.1:8080")
    return host.strip("[]")


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches the host: `localhost` or an address of 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
