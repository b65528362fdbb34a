"""The gateway's own listening socket, and where it may listen."""

import socket
from typing import Final

from services.kit.server import BindError, OpenAddress, host_of, is_loopback

_BACKLOG: Final = 2048


def listen(address: str) -> socket.socket:
    """Listen on host:port; port 0 takes a free one. Several gateways may share the port (SO_REUSEPORT).

    Raises:
        OpenAddress: not loopback, or malformed.
        BindError: taken, or not of this machine. The messages say why and what to do.
    """
    host, port = host_of(address), int(address.rpartition(":")[2])
    if not is_loopback(host):
        raise OpenAddress(
            f"{address} can be reached from other machines, and the gateway has no API keys yet: whoever reaches it "
            "may do everything. Listen on 127.0.0.1 or [::1]"
        )
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError) as error:
        raise BindError(f"{address} is no address that can be listened on: {error}") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BindError(f"cannot listen on {address}: {error.strerror}; name another address") from None
    return listener
