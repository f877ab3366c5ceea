"""What the user asks of the registrator, under the names that Registrator's flags have."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
from typing import Literal

from meshkit.errors import ConfigError
from meshkit.registrator.template import Template

Deregister = Literal["always", "on-success"]

RESYNC = 30.0
TTL_BITS = 24  # what etcd's backend has for it in a lease's number
LONGEST_TTL = 2**TTL_BITS - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of one registrator. Raises ConfigError for values that exclude each other.

    Attributes:
        ip: address to register published ports under; empty: the host's own.
        internal: register the container's own address and exposed ports, not the published ones.
        explicit: register only what has a SERVICE_NAME (or SERVICE_<port>_NAME).
        use_ip_from_label: label whose value (``10.0.0.5`` or ``10.0.0.5/24``) is the address.
        ttl: seconds after which entries that are not renewed expire, at least 1; None or 0: the
            engine's own.
        ttl_refresh: seconds between two renewals; less than ``ttl``, and only together with it.
        tags: template of the tags that every service gets, separated by commas.
        resync: seconds between two comparisons of all containers with the registry; 0: 30.
        deregister: "on-success" keeps the entry of a container that ended with an error.
        retry_attempts: tries to reach the registry at start, after the first; -1: for ever.
        retry_interval: milliseconds between them.
        cleanup: remove entries in Registrator's id form that this host has left behind, too.
        hostname: first part of each id; empty: the host name that Docker's engine reports.
        only_label: register only containers with this label, as ``team=a`` or ``team``; empty: all.
        network_label: label that names the network whose address a container is registered with.
    """

    ip: str = ""
    internal: bool = False
    explicit: bool = False
    use_ip_from_label: str = ""
    ttl: float | None = None
    ttl_refresh: float | None = None
    tags: str = ""
    resync: float = RESYNC
    deregister: Deregister = "always"
    retry_attempts: int = -1
    retry_interval: float = 2000.0
    cleanup: bool = False
    hostname: str = ""
    only_label: str = ""
    network_label: str = "SERVICE_NETWORK"

    def __post_init__(self) -> None:
        # Compose files that were written for Registrator spell its defaults out: 0 is "none".
        for name, unset in (("ttl", None), ("ttl_refresh", None), ("resync", RESYNC)):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, unset)
        if self.deregister not in ("always", "on-success"):
            raise ConfigError(f'-deregister {self.deregister!r}: use "always" or "on-success"')
        self._check_ttl()
        self._check_positive("-resync", self.resync)
        self._check_positive("-retry-interval", self.retry_interval)
        if self.retry_attempts < -1:
            raise ConfigError(f"-retry-attempts {self.retry_attempts}: use -1 (for ever) or more")
        if self.tags:
            Template.of(self.tags)  # raises for what is malformed: better now than per container
        if self.ip:
            try:
                ipaddress.ip_address(self.ip)
            except ValueError as error:
                raise ConfigError(f"-ip {self.ip!r} is not an IP address") from error

    def _check_ttl(self) -> None:
        if (self.ttl is None) != (self.ttl_refresh is None):
            raise ConfigError("-ttl and -ttl-refresh go together: give both, or neither")
        if self.ttl is not None and self.ttl_refresh is not None and self.ttl <= self.ttl_refresh:
            raise ConfigError(f"-ttl {self.ttl:g} must be greater than -ttl-refresh")
        if self.ttl is not None and not 1 <= self.ttl <= LONGEST_TTL:
            raise ConfigError(f"-ttl {self.ttl:g}: use 1 to {LONGEST_TTL} seconds")
        self._check_positive("-ttl-refresh", self.ttl_refresh)

    @staticmethod
    def _check_positive(flag: str, value: float | None) -> None:
        if value is not None and not (0 < value < math.inf):
            raise ConfigError(f"{flag} {value:g}: use a number greater than 0")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine that the containers run on.

    Attributes:
        name: as ids begin with it.
        ipv4: address that published ports are reached at; empty when it has none.
        ipv6: the same for ports that are published on IPv6; empty when it has none.
    """

    name: str
    ipv4: str = ""
    ipv6: str = ""
