"""Swarm: what a task's container shall show of the service that it belongs to.

A port that is published by way of the routing mesh (mode "ingress") is not in the container's own
list: each node listens on it, and leads to any task. It is registered for each task of this node,
at this node's address. A port in mode "host" is the container's own, as without Swarm.
https://docs.docker.com/reference/api/engine/ (Service, Task)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from meshkit.registrator.ports import PROTOCOLS, Binding, Port
from meshkit.registrator.record import Protocol

Inspect = Mapping[str, Any]

SERVICE_ID = "com.docker.swarm.service.id"


def service_id_of(container: Inspect) -> str:
    """Return the id of the Swarm service that a container is a task of; empty for others."""
    labels = (container.get("Config") or {}).get("Labels") or {}
    return str(labels.get(SERVICE_ID, ""))


def service_labels(service: Inspect | None) -> Mapping[str, str]:
    """Return the labels of the service itself (``deploy: labels:`` of a compose file)."""
    return ((service or {}).get("Spec") or {}).get("Labels") or {}


def ingress_ports(service: Inspect | None) -> dict[Port, tuple[Binding, ...]]:
    """Return the ports that each node of the swarm answers for this service."""
    found: dict[Port, tuple[Binding, ...]] = {}
    for each in ((service or {}).get("Endpoint") or {}).get("Ports") or ():
        if each.get("PublishMode", "ingress") != "ingress" or not each.get("PublishedPort"):
            continue
        if each.get("Protocol", "tcp") in PROTOCOLS:
            port = Port(each["TargetPort"], cast("Protocol", each.get("Protocol", "tcp")))
            found[port] = (*found.get(port, ()), Binding(each["PublishedPort"]))
    return {port: tuple(sorted(bindings)) for port, bindings in found.items()}
