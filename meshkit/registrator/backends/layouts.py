"""The forms that Registrator gave to keys, for those who read them."""

from __future__ import annotations

import dataclasses
import json
from typing import Protocol

from meshkit.model import Endpoint
from meshkit.registrator.naming import dns_label, dns_name
from meshkit.registrator.record import Record


class Layout(Protocol):
    """Where a record is written, and as what.

    Attributes:
        folder: what all keys begin with, with a slash at the end.
    """

    @property
    def folder(self) -> str: ...

    def key(self, record: Record) -> str:
        """Return the record's key."""
        ...

    def value(self, record: Record) -> bytes:
        """Return the record's value."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Addresses:
    """``<prefix>/<name>/<id>`` = ``ip:port``, of Registrator's etcd and consulkv."""

    prefix: str

    @property
    def folder(self) -> str:
        """See :class:`Layout`."""
        return f"{self.prefix}/" if self.prefix else ""

    def key(self, record: Record) -> str:
        """See :class:`Layout`."""
        return f"{self.folder}{record.name}/{record.id}"

    def value(self, record: Record) -> bytes:
        """See :class:`Layout`."""
        return str(Endpoint(record.host, record.port)).encode()


@dataclasses.dataclass(frozen=True, slots=True)
class DnsRecords:
    """``/skydns/<domain, backwards>/<name>/<id>`` = host and port, which SkyDNS and CoreDNS read.

    Registrator's own ids have colons, which no DNS name may: they become labels.
    """

    domain: str
    prefix: str = "/skydns"

    @property
    def folder(self) -> str:
        """See :class:`Layout`."""
        labels = [each for each in reversed(self.domain.split(".")) if each]
        return f"{'/'.join((self.prefix, *labels))}/"

    def key(self, record: Record) -> str:
        """See :class:`Layout`."""
        return f"{self.folder}{dns_name(record.name)}/{dns_label(record.id)}"

    def value(self, record: Record) -> bytes:
        """See :class:`Layout`."""
        return json.dumps({"host": record.host, "port": record.port}).encode()


@dataclasses.dataclass(frozen=True, slots=True)
class Nodes:
    """``<base>/<name>/<ip:port>`` = a JSON object, of Registrator's zookeeper."""

    prefix: str

    @property
    def folder(self) -> str:
        """See :class:`Layout`."""
        return f"{self.prefix}/"

    def key(self, record: Record) -> str:
        """See :class:`Layout`."""
        return f"{self.folder}{record.name}/{Endpoint(record.host, record.port)}"

    def value(self, record: Record) -> bytes:
        """See :class:`Layout`."""
        return json.dumps(
            {
                "Name": record.name,
                "IP": record.host,
                "PublicPort": record.port,
                "PrivatePort": record.private_port,
                "ContainerID": record.container_id[:12],
                "Tags": list(record.tags),
                "Attrs": dict(record.attributes),
            }
        ).encode()
