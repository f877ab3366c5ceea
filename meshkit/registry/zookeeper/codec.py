"""Instances as those of Apache Curator's service discovery, and back, also those of others.

The fields are Curator's ``ServiceInstance``, as its ``JsonInstanceSerializer`` writes it. See the
package for what is ours.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from meshkit.model import INSTANCE_ID, Endpoint, Instance, Status, check_metadata

OWN = "meshkit"
OWN_FIELDS = (
    "version",
    "tags",
    "metadata",
    "endpoints",
    "weight",
    "zone",
    "status",
    "started_at",
)
CLASS = "@class"  # Jackson's, in a payload


def encode(instance: Instance) -> bytes:
    """Return what the instance's node holds."""
    http = instance.endpoints.get("http")
    main = http or next(iter(instance.endpoints.values()), None)
    fields = instance.to_dict()
    return json.dumps(
        {
            "name": instance.service,
            "id": instance.id,
            "address": main.host if main else None,
            "port": main.port if main else None,
            "sslPort": None,
            "payload": None,
            "registrationTimeUTC": round(instance.started_at * 1000),
            "serviceType": "DYNAMIC",
            "uriSpec": _uri_spec(http) if http else None,
            "enabled": instance.up,
            OWN: {name: fields[name] for name in OWN_FIELDS},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def decode(service: str, name: str, data: bytes) -> Instance:
    """Read a node of ours or Curator's; ``name`` is the node's.

    Raises:
        ValueError: it is neither.
    """
    try:
        fields = json.loads(data)
        own = fields.get(OWN)
        if own is None:
            return _from_curator(service, name, fields)
        return _checked(Instance.from_dict({**own, "id": name, "service": service}))
    except (AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _checked(instance: Instance) -> Instance:
    """Return the instance if others could have registered it; raise ValueError otherwise."""
    check_metadata(instance.metadata)
    texts = (instance.id, instance.version, instance.zone, *instance.tags)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a text of it is none")
    if not INSTANCE_ID.fullmatch(instance.id) or not 0 < instance.weight < 65536:
        raise ValueError("its id or its weight is not possible")
    return instance


def _from_curator(service: str, name: str, fields: Mapping[str, Any]) -> Instance:
    if fields["name"] != service or "id" not in fields:
        raise ValueError(f"it says to be {fields['name']!r}")
    registered = float(fields.get("registrationTimeUTC") or 0) / 1000
    ports = {"http": fields.get("port"), "https": fields.get("sslPort")}
    address = fields.get("address")
    endpoints = {
        transport: Endpoint.parse(str(Endpoint(str(address), int(port))))
        for transport, port in ports.items()
        if port and address
    }
    return Instance(
        id=name if INSTANCE_ID.fullmatch(name) else _label(name),
        service=service,
        metadata=_metadata(fields.get("payload")),
        endpoints=endpoints,
        # Curator itself writes it only when told to.
        status=Status.DOWN if fields.get("enabled") is False else Status.UP,
        started_at=registered if math.isfinite(registered) else 0.0,
    )


def _metadata(payload: Any) -> dict[str, str]:
    """Return the texts of a payload; Spring Cloud has them one level down."""
    if not isinstance(payload, Mapping):
        return {}
    inner = payload.get("metadata")
    return {
        str(key): value
        for key, value in (inner if isinstance(inner, Mapping) else payload).items()
        if isinstance(value, str) and key != CLASS
    }


def _uri_spec(endpoint: Endpoint) -> dict[str, Any]:
    """Return Curator's template of ``scheme://address:port``, with the brackets of IPv6."""
    before, after = ("://[", "]:") if ":" in endpoint.host else ("://", ":")
    parts = (("scheme", True), (before, False), ("address", True), (after, False), ("port", True))
    return {"parts": [{"value": value, "variable": variable} for value, variable in parts]}


def _label(name: str) -> str:
    """Make a DNS label of a name that is none: readable, and never two the same."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].rstrip("-")
    return f"{readable}-{digest}" if readable else digest
