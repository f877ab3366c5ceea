"""The host's address and the ports that Docker publishes there for this container."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from meshkit.docker import Docker, JsonObject
from meshkit.errors import ConfigError
from meshkit.model import Endpoint
from meshkit.runtime.advertise import Advertised, is_loopback, is_wildcard
from meshkit.runtime.container import own_container

if TYPE_CHECKING:
    from meshkit.settings import MeshSettings

ADVICE = (
    "check --advertise-host; where only others can call a container's published port, because "
    "a firewall keeps the container from its own host, set MESHKIT_SELF_PROBE=warn"
)
CAUTION = "; only this host and its containers can call it, --advertise-host names another address"


async def published(
    settings: MeshSettings,
    listening: Mapping[str, int],
    given: Mapping[str, int],
    registry: Endpoint | None,
) -> Advertised | None:
    """Ask Docker for host and ports. None in the host's own network, where nothing is published.

    Args:
        settings: of the service.
        listening: each transport's port as set, 0 for any.
        given: ports that are set explicitly, by transport.
        registry: its server, None for one without.

    Raises:
        ConfigError: a port is not published, or the host's address can't be told.
        DockerError: Docker can't be asked.
    """
    host = settings.advertise_host
    if host and "/" in host:
        raise ConfigError(
            f"--advertise-host {host} is a network: with advertise=docker name the host's "
            "address, as a container does not see those of its host"
        )
    async with Docker() as docker:
        container = await own_container(docker)
        if container["HostConfig"]["NetworkMode"] == "host":
            return None
        if is_loopback(settings.host):
            raise ConfigError(
                f"--host {settings.host} can't be reached through a published port: "
                "listen on --host 0.0.0.0"
            )
        bindings = {
            name: _binding(container, name, port, _version_of(host))
            for name, port in listening.items()
            if name not in given
        }
        ports = {**given, **{name: each.port for name, each in bindings.items()}}
        if host:
            rule = "published by Docker, the host set explicitly"
            return Advertised(host, rule, ports=ports, advice=ADVICE)
        chosen = await _choose_host(docker, container, bindings, registry)
    return Advertised(chosen.host, chosen.rule, chosen.caution, ports=ports, advice=ADVICE)


def _binding(container: JsonObject, transport: str, port: int, version: int | None) -> Endpoint:
    """Return where the host listens for a port of ours, by an IP of that version if there is."""
    if not port:
        flag = "--port" if transport == "http" else "--grpc-port"
        raise ConfigError(
            f"advertise=docker: a free port for {transport} is not known before the start, so "
            f"that Docker can't publish it: choose one with {flag}, and publish that"
        )
    ports = container["NetworkSettings"]["Ports"] or {}
    found = ports.get(f"{port}/tcp")
    if not found:
        others = ", ".join(name for name, hosts in ports.items() if hosts) or "none"
        raise ConfigError(
            f"advertise=docker: port {port} ({transport}) of this container is not published "
            f"(published: {others}): start it with docker run --publish {port}, or with "
            f'ports: ["{port}"] in docker-compose.yml'
        )
    endpoints = [Endpoint(each["HostIp"], int(each["HostPort"])) for each in found]
    # The same port of ours may have another number for IPv6.
    return min(endpoints, key=lambda each: (_version_of(each.host) or 4) != (version or 4))


async def _choose_host(
    docker: Docker,
    container: JsonObject,
    bindings: Mapping[str, Endpoint],
    registry: Endpoint | None,
) -> Advertised:
    for endpoint in bindings.values():
        if not is_wildcard(endpoint.host):
            return Advertised(endpoint.host, "published by Docker on this address")
    engine = docker.host.address
    if not isinstance(engine, Path) and not is_loopback(engine.host):
        return Advertised(engine.host, "published by Docker, the host is DOCKER_HOST")
    if address := (await docker.info()).get("Swarm", {}).get("NodeAddr"):
        return Advertised(address, "published by Docker, the host's address in the Swarm")
    for network, gateway in _gateways(container):
        if registry is None or _is_in(registry.host, network):
            return Advertised(gateway, "published by Docker, the gateway to the host", CAUTION)
    raise ConfigError(
        "advertise=docker: Docker does not tell the host's address that others reach: name it "
        "with --advertise-host, or publish the ports on it (--publish 10.0.0.5::8000)"
    )


def _gateways(container: JsonObject) -> Iterator[tuple[ipaddress.IPv4Network, str]]:
    """Yield each network of the container with the host's address there."""
    for each in container["NetworkSettings"]["Networks"].values():
        if each["Gateway"]:
            network = f"{each['IPAddress']}/{each['IPPrefixLen']}"
            yield ipaddress.IPv4Network(network, strict=False), each["Gateway"]


def _is_in(host: str, network: ipaddress.IPv4Network) -> bool:
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return False
    return any(ipaddress.IPv4Address(address[0]) in network for *_, address in found)


def _version_of(host: str | None) -> int | None:
    try:
        return ipaddress.ip_address(host or "").version
    except ValueError:
        return None
