"""Which network addresses a webhook may be sent to.

A URL that a user gives must not make the service speak to its own network (server-side request forgery).
"""

import ipaddress
from typing import Final

# Global unicast as IANA assigned it; everything else in IPv6 is local, reserved, or carries an IPv4 address.
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# Addresses that wrap an IPv4 address: NAT64 (RFC 6052) is judged by what it wraps, tunnels are refused.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Say whether an IP address belongs to the public internet.

    Private (RFC 1918, RFC 4193), loopback, link-local, shared (RFC 6598), multicast, reserved and documentation
    addresses do not, nor do IPv6 addresses that carry one of these.

    Raises:
        ValueError: not an IP address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    if ip in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    tunnel = ip.sixtofour is not None or ip.teredo is not None
    return ip in _GLOBAL_UNICAST and ip.is_global and not tunnel
