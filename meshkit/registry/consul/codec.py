"""Instances as Consul's services, and back, also those that somebody else registered."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshkit.model import INSTANCE_ID, Endpoint, Instance, Status
from meshkit.registry.consul.checks import HEARTBEAT, heartbeat_id

# What Consul's service has no place for travels in its meta.
VERSION = "version"
OWN_VERSION = "meshkit-version"  # when the user's metadata has a "version" of its own
ZONE = "meshkit-zone"
STATUS = "meshkit-status"
STARTED_AT = "meshkit-started-at"
OWN = (OWN_VERSION, ZONE, STATUS, STARTED_AT)

# What the agents find out about each other: https://developer.hashicorp.com/consul/docs/architecture
AGENT = ("serfHealth", "Serf Health Status")

# Addresses that Consul itself adds to a service.
CONSULS_ADDRESSES = re.compile(r"(lan|wan)(_ipv[46])?|(consul-)?virtual.*")


def encode(instance: Instance, checks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``/v1/agent/service/register`` takes; see :mod:`.checks` for the checks.

    https://developer.hashicorp.com/consul/api-docs/agent/service#register-service
    """
    main = instance.endpoints.get("http") or next(iter(instance.endpoints.values()), None)
    return {
        "ID": instance.id,
        "Name": instance.service,
        "Tags": list(instance.tags),
        "Address": main.host if main else "",
        "Port": main.port if main else 0,
        "TaggedAddresses": {
            name: {"Address": endpoint.host, "Port": endpoint.port}
            for name, endpoint in instance.endpoints.items()
        },
        "Weights": {"Passing": instance.weight, "Warning": instance.weight},
        "Meta": _encode_meta(instance),
        "Checks": list(checks),
    }


def decode(
    entries: Iterable[Mapping[str, Any]],
) -> tuple[tuple[Instance, ...], dict[str, str]]:
    """Read an answer of ``/v1/health/service``.

    Returns:
        The instances, sorted by id, each id once; and what is wrong with entries that are none,
        by the service's id: anybody may have registered anything.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is no such answer.
    """
    found: dict[str, Instance] = {}
    corrupt: dict[str, str] = {}
    for entry in sorted(entries, key=lambda each: (each["Node"]["Node"], each["Service"]["ID"])):
        # Consul's ids are unique for each node only, and may be any text.
        service_id = instance_id = str(entry["Service"]["ID"])
        if instance_id in found or not INSTANCE_ID.fullmatch(instance_id):
            instance_id = _label(instance_id, str(entry["Node"]["Node"]))
        try:
            found[instance_id] = _decode(instance_id, entry)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            corrupt[service_id] = str(error) or type(error).__name__
    return tuple(found[instance_id] for instance_id in sorted(found)), corrupt


def _decode(instance_id: str, entry: Mapping[str, Any]) -> Instance:
    service = entry["Service"]
    meta = dict(service.get("Meta") or {})
    status, lapsed = _status(service["ID"], meta.get(STATUS), entry.get("Checks") or ())
    version = meta[OWN_VERSION] if OWN_VERSION in meta else meta.pop(VERSION, "")
    return Instance(
        id=instance_id,
        service=service["Service"],
        version=version,
        tags=tuple(service.get("Tags") or ()),
        metadata={name: value for name, value in meta.items() if name not in OWN},
        endpoints=_endpoints(service, entry["Node"]["Address"]),
        weight=(service.get("Weights") or {}).get("Passing") or 1,
        zone=meta.get(ZONE, ""),
        status=status,
        started_at=_seconds(meta.get(STARTED_AT, "")),
        lapsed=lapsed,
    )


def _encode_meta(instance: Instance) -> dict[str, str]:
    version = OWN_VERSION if VERSION in instance.metadata else VERSION
    own = {
        version: instance.version,
        ZONE: instance.zone,
        STATUS: instance.status.value,
        STARTED_AT: repr(instance.started_at) if instance.started_at else "",
    }
    # An empty version stands only where the user's own would be taken for it.
    return dict(instance.metadata) | {
        name: value for name, value in own.items() if value or name == OWN_VERSION
    }


def _status(
    service_id: str, declared: str | None, checks: Iterable[Mapping[str, Any]]
) -> tuple[Status, bool]:
    """Combine what the instance declared with what Consul sees; warning counts as up.

    Also return whether all that speaks against it is that it was not heard of in time: its own
    heartbeat, or by the other agents the one that it is registered at, as while that restarts.
    """
    status = Status(declared) if declared in tuple(Status) else Status.UP
    critical = {
        (check.get("CheckID"), check.get("Name"))
        for check in checks
        if check.get("Status") == "critical"
    }
    if status is not Status.UP or not critical:
        return status, False
    # By the id alone it could be the only check of a service that is none of ours.
    return Status.DOWN, critical <= {(heartbeat_id(service_id), HEARTBEAT), AGENT}


def _endpoints(service: Mapping[str, Any], node_address: str) -> dict[str, Endpoint]:
    tagged = {
        name: _endpoint(address["Address"], address["Port"])
        for name, address in (service.get("TaggedAddresses") or {}).items()
        if address["Port"] and not CONSULS_ADDRESSES.fullmatch(name)
    }
    if service.get("Port"):
        main = _endpoint(service.get("Address") or node_address, service["Port"])
        if main not in tagged.values():
            tagged.setdefault("http", main)
    return tagged


def _endpoint(host: str, port: int) -> Endpoint:
    if not host or not 0 < port < 65536:
        raise ValueError(f"{host!r} and {port} are no address and port")
    return Endpoint(host, port)


def _label(service_id: str, node: str) -> str:
    """Make a DNS label of an id that is none: readable, and never two the same."""
    digest = hashlib.sha256(f"{node}/{service_id}".encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", service_id.lower()).strip("-")[:50].rstrip("-")
    return f"{readable}-{digest}" if readable else digest


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0
