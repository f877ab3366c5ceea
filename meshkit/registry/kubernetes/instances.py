"""EndpointSlices as instances.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from meshkit.model import INSTANCE_ID, Endpoint, Instance, ServiceInfo, Status
from meshkit.registry.kubernetes.api import Slice

SERVICE = "kubernetes.io/service-name"
# Recommended for what is deployed; the controller copies a Service's labels to its slices.
VERSION = "app.kubernetes.io/version"
NODE = "node"
TRANSPORTS = ("http", "grpc")
ID_LENGTH = 63
DIGEST_LENGTH = 8


def to_instances(service: str, slices: Iterable[Slice]) -> tuple[Instance, ...]:
    """Make instances of a service's slices; sorted by id, each id once.

    The same pod is in several slices when it has addresses of both families (IPv4 is preferred),
    and for moments while the controller moves it.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: these are no EndpointSlices.
    """
    found: dict[str, Instance] = {}
    for each in sorted(slices, key=_preference):
        ports = _ports(each.get("ports") or ())
        version = str((each["metadata"].get("labels") or {}).get(VERSION, ""))
        for endpoint in each.get("endpoints") or ():
            made = _instance(service, version, endpoint, ports)
            if (known := found.get(made.id)) is not None:
                both = {**made.endpoints, **known.endpoints}
                made = dataclasses.replace(known, endpoints=both)
            found[made.id] = made
    return tuple(found[instance_id] for instance_id in sorted(found))


def to_services(slices: Iterable[Slice]) -> tuple[ServiceInfo, ...]:
    """Group slices by service; those that have endpoints, sorted by name. Raises the same."""
    grouped: dict[str, list[Slice]] = collections.defaultdict(list)
    for each in slices:
        if service := (each["metadata"].get("labels") or {}).get(SERVICE):
            grouped[service].append(each)
    counts = {name: len(to_instances(name, grouped[name])) for name in sorted(grouped)}
    return tuple(ServiceInfo(name=name, instances=count) for name, count in counts.items() if count)


def _preference(found: Slice) -> tuple[bool, str]:
    return found["addressType"] != "IPv4", found["metadata"]["name"]


def _ports(ports: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the port of each transport, as names, or protocols where they are told, say."""
    known = [each for each in ports if each.get("port") and each.get("protocol", "TCP") == "TCP"]
    found: dict[str, int] = {}
    for port in known:
        transport = _transport(port)
        if not transport and len(known) == 1 and not port.get("name"):
            transport = "http"
        if transport:
            found.setdefault(transport, port["port"])
    return found


def _transport(port: Mapping[str, Any]) -> str:
    """Return the transport of a port: named for it, ``grpc-admin`` also, or of that protocol."""
    named = (port.get("name") or "").partition("-")[0]
    return next((each for each in (named, port.get("appProtocol")) if each in TRANSPORTS), "")


def _instance(
    service: str, version: str, endpoint: Mapping[str, Any], ports: Mapping[str, int]
) -> Instance:
    # All addresses of one endpoint are the same; the first is the one to use.
    endpoints = {name: Endpoint(endpoint["addresses"][0], port) for name, port in ports.items()}
    node = endpoint.get("nodeName")
    return Instance(
        id=_id(service, endpoint, ports),
        service=service,
        version=version,
        metadata={NODE: node} if node else {},
        endpoints=endpoints,
        zone=endpoint.get("zone") or "",
        status=_status(endpoint.get("conditions") or {}),
    )


def _status(conditions: Mapping[str, bool | None]) -> Status:
    """Read conditions; what is not known means ready, and not terminating."""
    ready = conditions.get("ready") is not False
    if not conditions.get("terminating"):
        return Status.UP if ready else Status.DOWN
    serving = conditions.get("serving")
    return Status.DRAINING if (ready if serving is None else serving) else Status.DOWN


def _id(service: str, endpoint: Mapping[str, Any], ports: Mapping[str, int]) -> str:
    """Return the pod's name; service, address and port for what is no pod.

    As one DNS label: where it is none, with a digest, which makes two of them differ.
    """
    port = next(iter(ports.values()), 0)
    pod = (endpoint.get("targetRef") or {}).get("name")
    text = str(pod or f"{service}-{endpoint['addresses'][0]}-{port}")
    if INSTANCE_ID.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[: ID_LENGTH - DIGEST_LENGTH - 1]
    return f"{slug.rstrip('-')}-{digest}"
