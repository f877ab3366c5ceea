"""Names answered from etcd the way CoreDNS does it, written anew from its published algorithm.

https://github.com/coredns/coredns/blob/master/plugin/etcd/etcd.go (Records, get, loopNodes, TTL)
and plugin/backend_lookup.go (A, SRV). What is read comes through etcd's JSON gateway, so nothing
here is meshkit's own code.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from typing import Any

from tests.servers.etcd import Etcd

TTL = 300
PRIORITY = 10


@dataclasses.dataclass(frozen=True, order=True)
class Service:
    """One record as CoreDNS understands it: the name made of its key, and its fields."""

    name: str
    host: str
    port: int
    priority: int
    weight: int
    ttl: int


class CoreDns:
    """The etcd plugin with ``path`` as its path, on one server."""

    def __init__(self, etcd: Etcd, *, path: str) -> None:
        self._etcd = etcd
        self._path = path

    def records(self, name: str) -> list[Service]:
        """Return what is below the name, or else exactly there; an unreadable value fails all."""
        path = self._path + "".join(f"/{label}" for label in reversed(name.split(".")))
        found = self._etcd.entries(f"{path}/")
        if not found:
            found = {key: value for key, value in self._etcd.entries(path).items() if key == path}
        return sorted({self._service(key, value) for key, value in found.items()})

    def srv(self, name: str) -> set[tuple[int, int, int, str, str]]:
        """Answer an SRV query: priority, relative weight, port, target, and its address."""
        found = self.records(name)
        total: dict[int, int] = {}
        for each in found:
            total[each.priority] = total.get(each.priority, 0) + (each.weight or 100)
        answer = set()
        for each in found:
            weight = max(1, int(100 / total[each.priority] * each.weight)) if each.weight else 100
            target = each.name if is_address(each.host) else each.host
            answer.add((each.priority, weight, each.port, target, each.host))
        return answer

    def addresses(self, name: str) -> set[str]:
        """Answer an A and an AAAA query."""
        return {each.host for each in self.records(name) if is_address(each.host)}

    def _service(self, key: str, value: bytes) -> Service:
        record: dict[str, Any] = json.loads(value)
        labels = key.removeprefix(f"{self._path}/").split("/")
        return Service(
            name=".".join(reversed(labels)),
            host=record["host"],
            port=record.get("port", 0),
            priority=record.get("priority") or PRIORITY,
            weight=record.get("weight", 0),
            ttl=record.get("ttl") or TTL,
        )


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
