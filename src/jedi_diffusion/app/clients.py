"""Whom an address stands for: what one client holds is counted by it, whichever limit it is."""

from __future__ import annotations

import ipaddress

NETWORK = 64
"""Bits of an IPv6 address that name a subscriber's network, of which one machine may take any address
(RFC 4291, section 2.5.4; RFC 8981)."""


def client_of(address: str) -> str:
    """Return the client behind a peer's address.

    An IPv6 address counts as its /64 network, since a client has all of that, and an IPv4 address in the form
    of IPv6 ("::ffff:192.0.2.1") as the IPv4 address. This machine's own addresses stay as they are, and so
    does what is no address: the name of a socket, or what a proxy says.
    """
    parsed = _parsed(address)
    if parsed is None:
        return address
    if parsed.version == 4 or parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.ip_network((parsed.packed, NETWORK), strict=False))


def is_here(address: str) -> bool:
    """Tell whether a peer's address is on this machine; what is no address is a socket of its own."""
    parsed = _parsed(address)
    return parsed is None or parsed.is_loopback


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address without its zone, None for what is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed
