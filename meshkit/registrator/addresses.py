"""From a container's ports to the addresses that clients shall use."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from meshkit.registrator import networks
from meshkit.registrator.metadata import PREFIX, Setting, for_port, text
from meshkit.registrator.options import Host, Options
from meshkit.registrator.ports import Binding, Port, exposed, is_ipv6, published
from meshkit.registrator.swarm import ingress_ports, service_id_of

Inspect = Mapping[str, Any]
NUMBERS = range(1, 65536)
Warn = Callable[[str], None]
Address = tuple[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a container runs, and what is asked about its addresses.

    Attributes: those of :func:`meshkit.registrator.containers.records`.
    """

    container: Inspect
    options: Options
    host: Host
    settings: tuple[Setting, ...]
    peer: Inspect | None
    service: Inspect | None
    warn: Warn

    @property
    def network_owner(self) -> Inspect:
        """The container whose network it is: its own, or the one that it shares."""
        return self.peer if self.peer is not None else self.container


def addresses_of(place: Place) -> dict[Port, tuple[Address, ...]]:
    """Return where each port is reached, in order of the ports; those nowhere are left out."""
    found = {port: _addresses(place, port) for port in sorted(_ports(place))}
    return {port: addresses for port, addresses in found.items() if addresses}


def known_ports(place: Place) -> frozenset[Port]:
    """Return each port that a setting may speak of."""
    return exposed(place.container) | _bindings(place).keys() | _ports(place)


def _ports(place: Place) -> frozenset[Port]:
    ports = exposed(place.container) | ingress_ports(place.service).keys()
    if networks.shared_with(place.container) or service_id_of(place.container):
        # Docker takes no --expose here: besides the image only a name can tell.
        return ports | {
            Port(each.port or 0, "udp" if each.protocol == "udp" else "tcp")
            for each in place.settings
            if each.name == "name" and each.port in NUMBERS
        }
    return ports


def _bindings(place: Place) -> dict[Port, tuple[Binding, ...]]:
    return {**ingress_ports(place.service), **published(place.network_owner, _reached(place))}


def _reached(place: Place) -> Host:
    """The host, as it is known by what the user forces: that decides on IPv4 or IPv6."""
    if not place.options.ip:
        return place.host
    forced = place.options.ip
    six = is_ipv6(forced)
    return Host(name=place.host.name, ipv4="" if six else forced, ipv6=forced if six else "")


def _addresses(place: Place, port: Port) -> tuple[Address, ...]:
    """Follow, in this order: a network that is chosen, the host's network, -internal, bindings.

    An address that a label gives replaces whatever comes of it, not the port.
    """
    owner, internal = place.network_owner, place.options.internal
    bindings = _bindings(place).get(port, ())
    if network := _chosen_network(place, port):
        return _inside(place, port, _in_network(place, network))
    if networks.shares_host(owner):
        return _inside(place, port, _on_host(place, Binding(port.number)))
    if internal or (networks.shared_with(place.container) and not bindings):
        return _inside(place, port, networks.address_in(owner))
    labelled = _from_label(place)
    reached = ((labelled or _on_host(place, each), each.port) for each in bindings)
    return tuple(dict.fromkeys(each for each in reached if each[0]))


def _inside(place: Place, port: Port, host: str) -> tuple[Address, ...]:
    host = _from_label(place) or host
    if not host:
        place.warn(f"port {port.number} is not registered: the container has no address for it")
    return ((host, port.number),) if host else ()


def _from_label(place: Place) -> str:
    label = place.options.use_ip_from_label
    value = _labels(place).get(label, "") if label else ""
    if not value:
        return ""
    try:
        return str(ipaddress.ip_interface(value).ip)
    except ValueError:
        place.warn(f"{label}: {value!r} is not an IP address; left out")
        return ""


def _chosen_network(place: Place, port: Port) -> str:
    label = place.options.network_label
    if not label.startswith(PREFIX):
        return _labels(place).get(label, "")
    name = label.removeprefix(PREFIX).lower()
    return text(for_port(place.settings, port.number, port.protocol), name)


def _in_network(place: Place, network: str) -> str:
    address = networks.address_in(place.network_owner, network)
    if not address:
        known = ", ".join(networks.networks_of(place.network_owner)) or "none"
        place.warn(
            f"{place.options.network_label}: the container has no address in network {network!r}; "
            f"it is in {known}"
        )
    return address


def _on_host(place: Place, binding: Binding) -> str:
    """The forced address, or the one it is bound to, or the host's of the same family."""
    host, bound = place.host, binding.address
    if place.options.ip:
        return place.options.ip
    address = host.ipv6 if bound == "::" else bound or host.ipv4 or host.ipv6
    if not address:
        place.warn(f"port {binding.port} is not registered: give the host's address with -ip")
    return address


def _labels(place: Place) -> Mapping[str, str]:
    return (place.container.get("Config") or {}).get("Labels") or {}
