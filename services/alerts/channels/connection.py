"""Connections to hosts that users name: resolved once, refused when private, and bounded in time as a whole."""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import httpcore

from services.alerts.domain.address import is_public
from services.alerts.errors import AddressRefused

# Returns the IP addresses of a host; raises OSError when there are none.
Resolve = Callable[[str, int], Sequence[str]]


def system_resolve(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Bounded by its own timeouts (resolv.conf), some seconds."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressGuard:
    """Knows which hosts may be connected to."""

    def __init__(self, *, allow_private: bool, resolve: Resolve = system_resolve) -> None:
        self.allow_private = allow_private
        self._resolve = resolve

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses to connect to, and to nothing else: a second look-up might answer otherwise.

        Raises:
            AddressRefused: one of them is not public, and that is not allowed.
            OSError: the host has no address.
        """
        found = self._resolve(host, port)
        for address in found:
            if not self.allow_private and not is_public(address.partition("%")[0]):
                raise AddressRefused(f"{host} leads to {address}, which is not a public address")
        return found


class Deadline:
    """The end of an exchange. Timeouts by read or write alone would let a receiver drip bytes for ever."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left.

        Raises:
            httpcore.TimeoutException: none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.TimeoutException("the time for the whole exchange is over")
        return left


class GuardedNetwork(httpcore.NetworkBackend):
    """Opens the TCP connections of one exchange.

    httpcore asks for the host that the URL names and keeps that name for the Host header and the TLS certificate;
    which address it leads to is decided here.
    """

    def __init__(self, guard: AddressGuard, deadline: Deadline) -> None:
        self._guard = guard
        self._deadline = deadline
        self._plain: Final = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's addresses that answers.

        Raises:
            AddressRefused: the host is private.
            httpcore.ConnectError: it has no address, or none answers.
        """
        try:
            addresses = self._guard.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"cannot resolve {host}: {error.strerror}") from error
        failure: httpcore.ConnectError = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                stream = self._plain.connect_tcp(address, port, self._deadline.left(), local_address, socket_options)
                return GuardedStream(stream, self._deadline)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


class GuardedStream(httpcore.NetworkStream):
    """A connection that ends with the exchange's deadline."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline rules
        """Read what is there."""
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline rules
        """Write all of it."""
        self._inner.write(buffer, self._deadline.left())

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the deadline rules
    ) -> httpcore.NetworkStream:
        """Go on encrypted; the certificate must be the named host's."""
        return GuardedStream(self._inner.start_tls(ssl_context, server_hostname, self._deadline.left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection below says."""
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        """Close it."""
        self._inner.close()
