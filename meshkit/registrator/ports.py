"""Where the services of a container are reached: its ports, and the address of each."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, cast

from meshkit.registrator.options import Host
from meshkit.registrator.record import Protocol

Inspect = Mapping[str, Any]

WILDCARDS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104
PROTOCOLS = frozenset({"tcp", "udp"})


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port as the container has it."""

    number: int
    protocol: Protocol = "tcp"

    @classmethod
    def parse(cls, text: str) -> Port | None:
        """Read ``80/tcp``; None for protocols that no registry knows (sctp)."""
        number, _, protocol = text.partition("/")
        if (protocol or "tcp") not in PROTOCOLS:
            return None
        return cls(int(number), cast("Protocol", protocol or "tcp"))


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Binding:
    """A port of the host that leads to a container's.

    ``address`` is empty when it is open on all IPv4 addresses, ``::`` on all of IPv6.
    """

    port: int
    address: str = ""


def exposed(container: Inspect) -> frozenset[Port]:
    """Return the ports that the image or the command line names, published or not."""
    named = (container.get("Config") or {}).get("ExposedPorts") or {}
    return _ports({*named, *_runtime_ports(container)})


def published(container: Inspect, host: Host) -> dict[Port, tuple[Binding, ...]]:
    """Return the bindings of each published port, none of them twice.

    Docker reports a port that is published on all addresses once for IPv4 and once for IPv6, even
    with two numbers: only the one of the family that the host is known by is kept.
    """
    found: dict[Port, tuple[Binding, ...]] = {}
    for text, bindings in _runtime_ports(container).items():
        port = Port.parse(text)
        if port is not None and bindings:
            found[port] = _distinct(bindings, host)
    return found


def _runtime_ports(container: Inspect) -> Mapping[str, Any]:
    return (container.get("NetworkSettings") or {}).get("Ports") or {}


def _ports(texts: Iterable[str]) -> frozenset[Port]:
    return frozenset(port for port in map(Port.parse, texts) if port is not None)


def _distinct(bindings: Iterable[Mapping[str, str]], host: Host) -> tuple[Binding, ...]:
    by_family: dict[bool, set[Binding]] = {False: set(), True: set()}
    special: set[Binding] = set()
    for each in bindings:
        address, port = each.get("HostIp") or "", int(each["HostPort"])
        if address in WILDCARDS:
            by_family[address == "::"].add(Binding(port, address if address == "::" else ""))
        else:
            special.add(Binding(port, address))
    preferred = not host.ipv4
    return tuple(sorted((by_family[preferred] or by_family[not preferred]) | special))


def is_ipv6(address: str) -> bool:
    """Whether an address is IPv6; False also for what is no address."""
    try:
        return ipaddress.ip_address(address).version == 6
    except ValueError:
        return False
