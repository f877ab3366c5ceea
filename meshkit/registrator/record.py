"""What a container offers, in the registrator's own terms: one record for each address."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from meshkit.model import Status

CheckKind = Literal["http", "https", "tcp", "grpc", "ttl", "cmd", "script"]
Protocol = Literal["tcp", "udp"]
InitialStatus = Literal["", "passing", "warning", "critical"]

CHECK_INTERVAL = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How it is found out whether a record's service is well.

    Attributes:
        kind: which of the checks; ``cmd`` and ``script`` are run by Consul's agent.
        path: of ``http`` and ``https``: what follows ``host:port``, with a leading slash.
        method: of ``http`` and ``https``; empty leaves it to the registry (GET).
        interval: seconds between two checks (of all but ``ttl``).
        timeout: seconds that one check may take; None leaves it to the registry.
        ttl: of ``ttl``: seconds within which somebody must say that the service is well.
        use_tls: of ``grpc``: speak TLS.
        skip_verify: accept any certificate.
        initial_status: what the check is until it has first run; empty leaves it to the registry.
        deregister_after: seconds of "critical" after which Consul forgets the service; None: never.
        command: of ``cmd`` and ``script``: what is run, with the address filled in.
    """

    kind: CheckKind
    path: str = ""
    method: str = ""
    interval: float = CHECK_INTERVAL
    timeout: float | None = None
    ttl: float | None = None
    use_tls: bool = False
    skip_verify: bool = False
    initial_status: InitialStatus = ""
    deregister_after: float | None = None
    command: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One service at one address, as a container of this host offers it.

    Attributes:
        id: ``<host name>:<container name>:<container port>[:udp]``, or what SERVICE_ID says.
        name: the service it is registered as, as written (see :func:`naming.dns_name`).
        host: address that clients reach it at; IPv6 without brackets.
        port: port that clients reach it at, 1-65535.
        protocol: of the port.
        tags: in the order they were written.
        attributes: what else the container says of itself, without what steers the registrator.
        check: None when only the container's own state counts.
        container_id: all 64 digits.
        container_name: without the leading slash.
        private_port: the port inside the container.
        status: ``UP``, ``STARTING`` (its HEALTHCHECK has not passed yet), ``DOWN`` (unhealthy or
            paused) or ``DRAINING``.
        ttl: seconds after which an entry that nobody renews is gone; None: no expiry asked for.
    """

    id: str
    name: str
    host: str
    port: int
    protocol: Protocol = "tcp"
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check: Check | None = None
    container_id: str
    container_name: str
    private_port: int
    status: Status = Status.UP
    ttl: float | None = None
