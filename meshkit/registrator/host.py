"""The machine that the containers run on: its name in ids, and its address for published ports."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Mapping
from typing import Any

from meshkit.docker import Docker
from meshkit.model import Endpoint
from meshkit.registrator.options import Host, Options
from meshkit.runtime.advertise import is_loopback
from meshkit.runtime.container import find_own_container
from meshkit.runtime.interfaces import first_interface, route_towards

# Reserved for documentation: any address will do to ask the kernel for its default route.
ANYWHERE_IPV6 = Endpoint("2001:db8::1", 9)

log = logging.getLogger("meshkit.registrator")


async def find_host(docker: Docker, options: Options, registry: Endpoint | None) -> Host:
    """Ask the engine for its name, and find its address; the rule that won is logged.

    Args:
        docker: the engine.
        options: a name and an address that are given win.
        registry: the route towards it tells an address; None when it has no server.

    Raises DockerError.
    """
    info = await docker.info()
    name = options.hostname or str(info.get("Name") or socket.gethostname())
    if options.ip:
        return _host(name, options.ip)
    node = str((info.get("Swarm") or {}).get("NodeAddr") or "")
    if node and not is_loopback(node):
        return _found(_host(name, node), "its address in the Swarm")
    own = await find_own_container(docker)
    if own is not None and (own.get("HostConfig") or {}).get("NetworkMode") != "host":
        # What we see here are the container's own interfaces.
        host = Host(name=name, ipv4=_gateway(own))
        if not options.internal:
            log.warning(
                "published ports are registered at %s, which only containers of this host can "
                "reach: give -ip, or -internal, or run the registrator with --net=host",
                host.ipv4 or "no address",
            )
        return host
    towards = route_towards(registry) if registry is not None else None
    ipv6 = route_towards(ANYWHERE_IPV6) or ""
    if towards and not is_loopback(towards):
        rule = f"the route to the registry at {registry}"
        if ":" in towards:
            return _found(
                Host(name=name, ipv4=first_interface(ipv6=False) or "", ipv6=towards), rule
            )
        return _found(Host(name=name, ipv4=towards, ipv6=ipv6), rule)
    if first := first_interface(ipv6=False):
        return _found(Host(name=name, ipv4=first, ipv6=ipv6), "the first real interface")
    return _found(Host(name=name, ipv4="127.0.0.1", ipv6=ipv6), "no interface but loopback")


def _host(name: str, address: str) -> Host:
    if ipaddress.ip_address(address).version == 6:
        return Host(name=name, ipv6=address)
    return Host(name=name, ipv4=address)


def _found(host: Host, rule: str) -> Host:
    log.info("published ports are registered at %s (%s)", host.ipv4 or host.ipv6, rule)
    return host


def _gateway(container: Mapping[str, Any]) -> str:
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    return next((each["Gateway"] for each in networks.values() if each.get("Gateway")), "")
