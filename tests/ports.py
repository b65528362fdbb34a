"""Free ports for tests, from below the range that systems take for outgoing connections: nobody gets one by chance."""

import random
import socket

_LOWEST, _HIGHEST = 20_000, 32_000


def free_ports(span: int = 1) -> int:
    """Return the first of `span` free ports in a row."""
    while True:
        first = random.randrange(_LOWEST, _HIGHEST - span)
        if all(_is_free(first + offset) for offset in range(span)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
