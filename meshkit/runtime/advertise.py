"""The address that others reach us by, and which rule chose it."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING

from meshkit.errors import ConfigError
from meshkit.model import Endpoint
from meshkit.runtime.interfaces import first_interface, own_addresses, route_towards

if TYPE_CHECKING:
    from meshkit.registry import Registry
    from meshkit.settings import MeshSettings

NO_PORTS: Mapping[str, int] = {}
ADVICE = (
    "check --host and --advertise-host, or set MESHKIT_SELF_PROBE=warn "
    "where an address is only reachable from outside"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Advertised:
    """A host to register, and the rule that chose it, for the log.

    Attributes:
        ports: of transports that others reach by another port than the one listened on.
        caution: what the log says behind the rule.
        advice: what to do when we can't reach ourselves there.
    """

    host: str
    rule: str
    caution: str = ""
    ports: Mapping[str, int] = dataclasses.field(default_factory=dict)
    advice: str = ADVICE


async def advertised(
    settings: MeshSettings, listening: Mapping[str, int], registry: Registry
) -> Advertised:
    """Choose host and ports as the settings ask.

    Args:
        settings: of the service.
        listening: each transport's port as set, 0 for any.
        registry: where they will be registered.

    Raises:
        ConfigError: nobody else could reach them, or Docker does not publish them.
        DockerError: Docker is to tell, and can't be asked.
    """
    # Nobody finds us through a registry that is only read.
    peer = None if registry.read_only else registry.peer
    given = {"http": settings.advertise_port, "grpc": settings.advertise_grpc_port}
    ports = {name: port for name, port in given.items() if port and name in listening}
    chosen = None
    if settings.advertise == "docker":
        from meshkit.runtime.published import published  # noqa: PLC0415 - few need it

        chosen = await published(settings, listening, ports, peer)
    if chosen is None:
        chosen = choose_host(settings.host, settings.advertise_host, peer)
        chosen = dataclasses.replace(chosen, ports=ports)
    if registry.read_only:
        told = f"to ourselves alone, as {registry.url} is only read"
        chosen = dataclasses.replace(chosen, rule=told, caution="")
    return reachable(chosen, peer, registry.url)


def reachable(chosen: Advertised, registry: Endpoint | None, registry_url: str) -> Advertised:
    """Refuse loopback for a registry of other machines, and caution for one of this machine."""
    if registry is None or not is_loopback(chosen.host):
        return chosen
    if is_loopback(registry.host):
        # Right on a laptop; behind the local agent of a cluster it would be wrong.
        caution = "; only this machine can call it, --host 0.0.0.0 opens it to others"
        return dataclasses.replace(chosen, caution=caution)
    raise ConfigError(
        f"{chosen.host} ({chosen.rule}) can't be reached by the users of {registry_url}: "
        "listen on --host 0.0.0.0, or name a reachable address with --advertise-host"
    )


def choose_host(bind_host: str, explicit: str | None, registry: Endpoint | None) -> Advertised:
    """Go through the rules in order. Raises ConfigError when no address is in a given network."""
    if explicit and "/" in explicit:
        return Advertised(_address_in(explicit), f"our address in the network {explicit}")
    if explicit:
        return Advertised(explicit, "set explicitly")
    if not is_wildcard(bind_host):
        return Advertised(bind_host, "the address listened on")
    if registry is None:
        return Advertised("127.0.0.1", "a registry of this machine")
    # The agent of a cluster is often on loopback, and the way to it says nothing about the way
    # from other machines.
    ipv6 = bind_host == "::"
    if (host := route_towards(registry, ipv6=ipv6)) and _is_for_others(host):
        return Advertised(host, f"the route to the registry at {registry}")
    if host := first_interface(ipv6=ipv6):
        return Advertised(host, "the first real interface")
    return Advertised("127.0.0.1", "no interface but loopback")


def _address_in(network: str) -> str:
    wanted = ipaddress.ip_network(network, strict=False)
    # Of link-local addresses others would need to know the interface too.
    own = sorted(
        (address for _, address in own_addresses()),
        key=lambda each: (each.is_loopback, each.is_link_local),
    )
    found = next((each for each in own if each in wanted), None)
    if found is None:
        have = ", ".join(str(each) for each in own if not each.is_link_local)
        raise ConfigError(
            f"--advertise-host {network}: no address of this machine is in that network; "
            f"it has {have}"
        )
    return str(found)


def _is_for_others(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


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
