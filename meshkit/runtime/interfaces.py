"""The addresses of this machine, as its kernel tells them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from meshkit.model import Endpoint

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Bridges and tunnels that containers and virtual machines add; nobody outside reaches us there.
VIRTUAL = ("docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "tun", "tap", "lo")


def route_towards(peer: Endpoint, *, ipv6: bool = True) -> str | None:
    """Return our address on the route to ``peer``, an IPv4 address unless ``ipv6``."""
    family = socket.AF_UNSPEC if ipv6 else socket.AF_INET
    try:
        found = socket.getaddrinfo(peer.host, peer.port, family, socket.SOCK_DGRAM)
    except OSError:
        return None
    sources = (_source(family, address) for family, _, _, _, address in found)
    return next(filter(None, sources), None)


def _source(family: socket.AddressFamily, address: Any) -> str | None:
    """Return what the kernel would send from. Connecting a UDP socket sends no packet."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def first_interface(*, ipv6: bool = True) -> str | None:
    """Return an address of the first interface that is neither loopback nor virtual.

    An IPv4 address where there is one, else with ``ipv6`` an IPv6 address.
    """
    for name, address in own_addresses():
        real = not (name.startswith(VIRTUAL) or address.is_link_local or address.is_loopback)
        if real and (ipv6 or address.version == 4):
            return str(address)
    return None


def own_addresses() -> list[tuple[str, Address]]:
    """Return each interface that is up with each of its addresses, IPv4 first."""
    from meshkit.runtime import getifaddrs  # noqa: PLC0415 - ctypes is needed for few services

    return sorted(getifaddrs.addresses(), key=lambda found: found[1].version)
