"""The registries' servers as the demo has to know them: who leads, and whether all is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from compose import Compose, DemoError

SRVR = "exec 3<>/dev/tcp/127.0.0.1/2181; echo srvr >&3; cat <&3"


class Cluster:
    """The servers of one registry.

    Attributes:
        servers: their Compose services.
        agent: the service that stands between the servers and everybody else, if there is one.
    """

    servers: tuple[str, ...] = ()
    agent: str | None = None

    def __init__(self, compose: Compose) -> None:
        self._compose = compose

    async def leader(self) -> str | None:
        """Return the server that leads, by the word of the first that knows; None without one."""
        for server in self.servers:
            try:
                found = await self._leader(server)
            except (DemoError, ValueError, LookupError):  # it is down, or knows of none
                continue
            if found is not None:
                return found
        return None

    async def healthy(self) -> bool:
        """Whether all servers are well and vote, so that one may be lost."""
        try:
            return await self._healthy()
        except (DemoError, ValueError, LookupError):
            return False

    async def at_agent(self) -> int | None:
        """Return how many instances are registered at the agent; None without one."""
        return None

    async def _leader(self, server: str) -> str | None:
        raise NotImplementedError

    async def _healthy(self) -> bool:
        raise NotImplementedError


class ConsulCluster(Cluster):
    servers = ("node1", "node2", "node3")
    agent = "node4"

    async def at_agent(self) -> int | None:
        """What the servers still list may be what the agent has lost."""
        url = "http://127.0.0.1:8500/v1/agent/services"
        return len(json.loads(await self._compose.exec(self.agent, "curl", "-s", url)))

    async def _leader(self, server: str) -> str | None:
        peers = await self._compose.exec(server, "consul", "operator", "raft", "list-peers")
        return next((line.split()[0] for line in peers.splitlines() if " leader " in line), None)

    async def _healthy(self) -> bool:
        """One that came back does not vote at once; losing another before that loses all."""
        url = "http://127.0.0.1:8500/v1/operator/autopilot/health"
        leader = await self.leader()
        if leader is None:
            return False
        health = json.loads(await self._compose.exec(leader, "curl", "-s", url))
        voters = [each for each in health["Servers"] or () if each["Healthy"] and each["Voter"]]
        return len(voters) == len(self.servers)


class EtcdCluster(Cluster):
    servers = ("etcd1", "etcd2", "etcd3")

    async def _leader(self, server: str) -> str | None:
        own, leader = await self._ids(server)
        return server if own == leader else None

    async def _healthy(self) -> bool:
        leaders = {(await self._ids(server))[1] for server in self.servers}
        return len(leaders) == 1 and 0 not in leaders

    async def _ids(self, server: str) -> tuple[int, int]:
        """Return the member's own id and that of its leader, 0 when it has none."""
        command = "endpoint status --write-out json --command-timeout 3s"
        etcdctl = await self._compose.exec(server, "/usr/local/bin/etcdctl", *command.split())
        status: dict[str, Any] = json.loads(etcdctl)[0]["Status"]
        return status["header"]["member_id"], status.get("leader", 0)


class ZooKeeperCluster(Cluster):
    servers = ("zoo1", "zoo2", "zoo3")

    async def _leader(self, server: str) -> str | None:
        return server if await self._mode(server) == "leader" else None

    async def _healthy(self) -> bool:
        modes = sorted([await self._mode(server) for server in self.servers])
        return modes == ["follower", "follower", "leader"]

    async def _mode(self, server: str) -> str:
        answer = await self._compose.exec(server, "bash", "-c", SRVR)
        facts = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
        return facts.get("Mode", "none")  # it has none while it isn't part of a quorum


CLUSTERS: dict[str, Callable[[Compose], Cluster]] = {
    "consul": ConsulCluster,
    "etcd": EtcdCluster,
    "zookeeper": ZooKeeperCluster,
}
