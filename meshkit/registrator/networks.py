"""The address that a container has in its own networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Inspect = Mapping[str, Any]

SHARED = "container:"
# Traffic reaches a container through it only by way of the published port.
INGRESS = "ingress"
PROJECT_LABEL = "com.docker.compose.project"


def mode_of(container: Inspect) -> str:
    """Return the network mode: ``default``, ``host``, ``container:<id>``, a network's name."""
    return str((container.get("HostConfig") or {}).get("NetworkMode") or "default")


def shares_host(container: Inspect) -> bool:
    """Whether it uses the host's own network."""
    return mode_of(container) == "host"


def shared_with(container: Inspect) -> str:
    """Return the id (or name) of the container whose network it uses; empty: it has its own."""
    mode = mode_of(container)
    return mode.removeprefix(SHARED) if mode.startswith(SHARED) else ""


def address_in(container: Inspect, network: str = "") -> str:
    """Return the container's address in one network, IPv4 before IPv6; empty when it has none.

    Without ``network``: in the one that it was started in, else in the first by name. A name as a
    compose file writes it, without the project, is understood.
    """
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    if network:
        return _address(networks.get(_full_name(container, network, networks)) or {})
    mode = mode_of(container)
    started_in = networks.get("bridge" if mode == "default" else mode) or {}
    others = (networks[name] for name in sorted(networks) if name != INGRESS)
    return next((found for each in (started_in, *others) if (found := _address(each))), "")


def networks_of(container: Inspect) -> tuple[str, ...]:
    """Return the names of its networks, sorted."""
    return tuple(sorted((container.get("NetworkSettings") or {}).get("Networks") or {}))


def _full_name(container: Inspect, network: str, networks: Mapping[str, Any]) -> str:
    labels = (container.get("Config") or {}).get("Labels") or {}
    project = labels.get(PROJECT_LABEL, "")
    full = f"{project}_{network}"
    return full if network not in networks and full in networks else network


def _address(endpoint: Mapping[str, Any]) -> str:
    return str(endpoint.get("IPAddress") or endpoint.get("GlobalIPv6Address") or "")
