"""The values that everything else speaks in: frozen, slotted, importing nothing of ours."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import time
from collections.abc import Mapping
from typing import Any, Self

# One DNS label: valid as a name in Consul, DNS, etcd keys and ZooKeeper paths alike.
SERVICE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
INSTANCE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Consul's limits for service meta, the strictest of the registries:
# https://developer.hashicorp.com/consul/api-docs/agent/service#meta
METADATA_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
METADATA_VALUE_LENGTH = 512
METADATA_PAIRS = 48  # of Consul's 64; the rest is left for engines to store their own fields


class Status(enum.StrEnum):
    """State of an instance as its registry shows it."""

    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"
    DOWN = "down"


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one transport of an instance listens: host (name or address) and port (1-65535)."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``host:port`` or ``[ipv6]:port``. Raises ValueError when it is neither."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:8000")
        if not colon or not host or not port.isascii() or not port.isdigit():
            raise ValueError(f"{text!r} is not host:port")
        if not 0 < int(port) < 65536:
            raise ValueError(f"{text!r}: the port must be between 1 and 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One running copy of a service.

    Attributes:
        id: unique per process start; one DNS label (``[a-z0-9-]``, at most 63 characters).
        service: the name it is found by; one DNS label.
        version: free text, by convention a semantic version.
        tags: short words that consumers filter by.
        metadata: text pairs, within Consul's limits (keys ``[A-Za-z0-9_-]``, values <= 512).
        endpoints: transport (``"http"``, ``"grpc"``) to address. Both are one instance.
        weight: share of traffic relative to other instances, 1-65535.
        zone: failure domain, empty when unknown.
        status: see :class:`Status`; only ``UP`` instances are called.
        started_at: seconds since the epoch.
        lapsed: True when it is ``DOWN`` only because its registry has not heard of it in time. Then
            it may be the registry that was away. Set by whoever reads; not registered.
    """

    id: str
    service: str
    version: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = dataclasses.field(default_factory=dict)
    weight: int = 1
    zone: str = ""
    status: Status = Status.UP
    started_at: float = 0.0
    lapsed: bool = False

    @property
    def up(self) -> bool:
        """Whether it may be called."""
        return self.status is Status.UP

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; :meth:`from_dict` is the way back."""
        return {
            "id": self.id,
            "service": self.service,
            "version": self.version,
            "tags": list(self.tags),
            "metadata": dict(self.metadata),
            "endpoints": {name: str(endpoint) for name, endpoint in self.endpoints.items()},
            "weight": self.weight,
            "zone": self.zone,
            "status": self.status.value,
            "started_at": self.started_at,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote. Raises ValueError, KeyError or TypeError otherwise."""
        started_at = float(data["started_at"])
        if not math.isfinite(started_at):
            raise ValueError(f"{started_at} is no time")
        return cls(
            id=data["id"],
            service=data["service"],
            version=data["version"],
            tags=tuple(data["tags"]),
            metadata=dict(data["metadata"]),
            endpoints={
                name: Endpoint.parse(str(text)) for name, text in dict(data["endpoints"]).items()
            },
            weight=int(data["weight"]),
            zone=data["zone"],
            status=Status(data["status"]),
            started_at=started_at,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The full list of a service's instances at one moment, sorted by id.

    A snapshot is knowledge: an empty one says "nobody is registered". Not having reached the
    registry yet is the absence of a snapshot, never an empty one.

    Attributes:
        service: the name that was asked for.
        instances: all instances with their status; consumers call only those that are ``UP``.
        revision: grows with every change that the engine has seen; meaningful within one watch.
        stale: True when it comes from an earlier time (disk, registry lost) and may be outdated.
        read_at: seconds since the epoch when the registry last confirmed it.
    """

    service: str
    instances: tuple[Instance, ...]
    revision: int = 0
    stale: bool = False
    read_at: float = dataclasses.field(default_factory=time.time)

    @property
    def up(self) -> tuple[Instance, ...]:
        """The instances that may be called."""
        return tuple(instance for instance in self.instances if instance.up)

    @property
    def age(self) -> float:
        """Seconds since the registry last confirmed this list."""
        return max(0.0, time.time() - self.read_at)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """A service as the registry lists it: its name, tags in use, and number of instances."""

    name: str
    tags: tuple[str, ...] = ()
    instances: int = 0


def check_service_name(name: str) -> str:
    """Return ``name`` when it is one DNS label; raise ValueError that says what is allowed."""
    if not isinstance(name, str) or not SERVICE_NAME.fullmatch(name):
        raise ValueError(
            f"invalid service name {name!r}: use lower-case letters, digits and '-', "
            "starting with a letter, at most 63 characters"
        )
    return name


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise ValueError when a pair would be refused by the strictest registry (Consul)."""
    if len(metadata) > METADATA_PAIRS:
        raise ValueError(f"{len(metadata)} metadata pairs, at most {METADATA_PAIRS} are allowed")
    for key, value in metadata.items():
        if not METADATA_KEY.fullmatch(key):
            raise ValueError(
                f"metadata key {key!r}: use letters, digits, '-' and '_', at most 128 characters"
            )
        if not isinstance(value, str) or len(value.encode()) > METADATA_VALUE_LENGTH:
            raise ValueError(
                f"metadata {key!r}: the value must be text of at most "
                f"{METADATA_VALUE_LENGTH} bytes in UTF-8"
            )
