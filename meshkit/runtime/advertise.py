"""The address that others reach us by, and which rule chose it."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket

from meshkit.errors import ConfigError
from meshkit.model import Endpoint

# Bridges and tunnels that containers and virtual machines add; nobody outside reaches us there.
VIRTUAL = ("docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "tun", "tap", "lo")


@dataclasses.dataclass(frozen=True, slots=True)
class Advertised:
    """A host to register, and the rule that chose it, for the log."""

    host: str
    rule: str
    caution: str = ""


def advertised_host(
    bind_host: str, explicit: str | None, registry: Endpoint | None, registry_url: str
) -> Advertised:
    """Choose the host: explicit, the bound address, the route to the registry, an interface.

    Args:
        bind_host: what the listeners are bound to.
        explicit: ``--advertise-host`` or its variable.
        registry: the registry's server, None for one without.
        registry_url: for the error message.

    Raises:
        ConfigError: nobody on another machine could reach the address.
    """
    chosen = _choose(bind_host, explicit, registry)
    if registry is not None and is_loopback(chosen.host) and is_loopback(registry.host):
        # Right on a laptop; behind the local agent of a cluster it would be wrong.
        caution = "; only this machine can call it, --host 0.0.0.0 opens it to others"
        return dataclasses.replace(chosen, caution=caution)
    if registry is not None and is_loopback(chosen.host) and not is_loopback(registry.host):
        raise ConfigError(
            f"{chosen.host} ({chosen.rule}) can't be reached by the users of {registry_url}: "
            "listen on --host 0.0.0.0, or name a reachable address with --advertise-host"
        )
    return chosen


def _choose(bind_host: str, explicit: str | None, registry: Endpoint | None) -> Advertised:
    if explicit:
        return Advertised(explicit, "set explicitly")
    if not is_wildcard(bind_host):
        return Advertised(bind_host, "the address listened on")
    if registry is None:
        return Advertised("127.0.0.1", "a registry of this machine")
    # The agent of a cluster is often on loopback, and the way to it says nothing about the way
    # from other machines.
    if (host := route_towards(registry)) and not is_wildcard(host) and not is_loopback(host):
        return Advertised(host, f"the route to the registry at {registry}")
    if host := first_interface():
        return Advertised(host, "the first real interface")
    return Advertised("127.0.0.1", "no interface but loopback")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine itself: a 127.0.0.0/8 or ::1 address, or localhost."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether the host means "every address of this machine"."""
    return host in ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound


def reached_locally(bind_host: str) -> str:
    """Return the address by which this machine reaches what is bound to ``bind_host``."""
    if not is_wildcard(bind_host):
        return bind_host
    return "::1" if bind_host == "::" else "127.0.0.1"


def route_towards(peer: Endpoint) -> str | None:
    """Return our address on the route to ``peer``. Connecting a UDP socket sends no packet."""
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def first_interface() -> str | None:
    """Return the IPv4 address of the first interface that is neither loopback nor virtual."""
    for _, name in socket.if_nameindex():
        if not name.startswith(VIRTUAL) and (host := _ipv4_of(name)):
            return host
    return None


def _ipv4_of(interface: str) -> str | None:
    """Ask the kernel (Linux) for an interface's address: SIOCGIFADDR, netdevice(7)."""
    import fcntl  # noqa: PLC0415 - not on every platform
    import struct  # noqa: PLC0415

    request = struct.pack("256s", interface.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe.fileno(), 0x8915, request)
    except OSError:
        return None
    return socket.inet_ntoa(answer[20:24])
