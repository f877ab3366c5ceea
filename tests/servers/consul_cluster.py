"""Consul as it is run: servers that elect a leader, a client agent, and other datacenters."""

from __future__ import annotations

import dataclasses
import http.client
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.consul import Consul, Ports, free_consul_ports
from tests.servers.ports import free_ports

HEALTH_LIMIT = 60.0


class ConsulMember(Consul):
    """One agent of a cluster, a server or a client. Its data outlives a restart.

    Args:
        program: the consul program.
        folder: for its log, settings and data.
        name: its node's name.
        defaults: the cluster's part of its configuration.
        server: one that elects and stores, or one that only speaks to those.
        ports: where it listens.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        name: str,
        defaults: Mapping[str, Any],
        server: bool,
        ports: Ports,
    ) -> None:
        super().__init__(program, folder, ports=ports)
        self.name = name
        self.server = server
        self._defaults = dict(defaults) | {
            "node_name": name,
            "server": server,
            "data_dir": str(folder / "data"),
        }

    def configure(self, **settings: Any) -> None:
        """Change its configuration from the next start on."""
        self._defaults |= settings

    def command(self) -> list[str]:
        return ["agent", f"-config-file={self.write_settings(self._defaults)}"]

    def ready(self) -> bool:
        """Whether there is a leader who has it in the catalog."""
        try:
            _, leader = self.request("GET", "/v1/status/leader")
            status, nodes = self.request("GET", "/v1/catalog/nodes")
        except (OSError, http.client.HTTPException):
            return False
        return bool(leader) and status == 200 and self.name in {each["Node"] for each in nodes}

    def empty(self) -> None:
        """Remove its data, as a container without a volume loses it; to be called while down."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)


@dataclasses.dataclass(frozen=True, slots=True)
class ConsulCluster:
    """The agents of one datacenter: ``node1``, ``node2``, ..., servers first."""

    servers: list[ConsulMember]
    clients: list[ConsulMember]

    @property
    def members(self) -> list[ConsulMember]:
        """All agents."""
        return [*self.servers, *self.clients]

    @property
    def client(self) -> ConsulMember:
        """The client agent."""
        return self.clients[0]

    def leader(self) -> ConsulMember:
        """Return the server that leads. Raises AssertionError when there is none."""
        leader = self.leader_or_none()
        assert leader is not None, "no agent knows of a leader"
        return leader

    def leader_or_none(self) -> ConsulMember | None:
        """Return the server that leads, by the word of the first agent that knows one."""
        for member in self.members:
            try:
                status, address = member.request("GET", "/v1/status/leader")
            except (OSError, http.client.HTTPException):
                continue
            if status == 200 and address:
                (found,) = (
                    each for each in self.servers if address.endswith(f":{each.ports.server}")
                )
                return found
        return None

    def follower(self) -> ConsulMember:
        """Return a server that does not lead."""
        leader = self.leader()
        return next(each for each in self.servers if each is not leader)

    def wait_healthy(self, *, servers: int | None = None) -> None:
        """Wait until so many servers (all, unless given) vote and are healthy.

        Before that the loss of one more can mean the loss of all: who comes back does not vote
        at once.
        """
        expected = len(self.servers) if servers is None else servers
        deadline = time.monotonic() + HEALTH_LIMIT
        while self._healthy_voters() < expected:
            assert time.monotonic() < deadline, f"the cluster has not {expected} healthy servers"
            time.sleep(0.1)

    def wait_datacenters(self, count: int) -> None:
        """Wait until the first server can reach so many datacenters, its own among them."""
        server, deadline = self.servers[0], time.monotonic() + HEALTH_LIMIT
        while not self._reaches(names := server.get("/v1/catalog/datacenters"), count):
            assert time.monotonic() < deadline, f"only {names} have joined"
            time.sleep(0.1)

    def _reaches(self, names: Sequence[str], count: int) -> bool:
        server = self.servers[0]
        return len(names) >= count and all(
            server.request("GET", f"/v1/catalog/nodes?dc={name}")[0] == 200 for name in names
        )

    def _healthy_voters(self) -> int:
        leader = self.leader_or_none()
        if leader is None:
            return 0
        try:
            status, health = leader.request("GET", "/v1/operator/autopilot/health")
        except (OSError, http.client.HTTPException):
            return 0
        if not isinstance(health, dict) or status not in (200, 429):
            return 0
        return sum(each["Healthy"] and each["Voter"] for each in health["Servers"] or ())


def make_consul_cluster(
    program: Path,
    folder: Path,
    *,
    servers: int = 3,
    clients: int = 1,
    datacenter: str = "dc1",
    raft_multiplier: int = 1,
    wan: int | None = None,
    join_wan: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
) -> ConsulCluster:
    """Return the agents of a cluster, not started: they are ready once most servers run.

    Args:
        program: the consul program.
        folder: for the agents' folders.
        servers: how many servers.
        clients: how many client agents.
        datacenter: its name.
        raft_multiplier: 1 finds a new leader in a second or two; Consul's own 5 takes over 10 s.
        wan: the port for other datacenters of its first server; none unless given.
        join_wan: such ports of other datacenters.
        settings: more of each agent's configuration.
    """
    ports = free_consul_ports(servers + clients)
    if wan is not None:
        ports[0] = dataclasses.replace(ports[0], serf_wan=wan)
    defaults: dict[str, Any] = {
        "datacenter": datacenter,
        "retry_join": [f"127.0.0.1:{each.serf_lan}" for each in ports[:servers]],
        "retry_interval": "500ms",
        "performance": {"raft_multiplier": raft_multiplier, "leave_drain_time": "100ms"},
        "limits": {"http_max_conns_per_client": 2000},
    } | dict(settings or {})
    as_server = defaults | {
        "bootstrap_expect": servers,
        "autopilot": {"server_stabilization_time": "1s"},
    }
    first = {"retry_join_wan": [f"127.0.0.1:{port}" for port in join_wan]} if join_wan else {}

    def member(number: int) -> ConsulMember:
        name, server = f"node{number + 1}", number < servers
        own = (as_server if server else defaults) | (first if number == 0 else {})
        return ConsulMember(
            program, folder / name, name=name, defaults=own, server=server, ports=ports[number]
        )

    return ConsulCluster(
        [member(number) for number in range(servers)],
        [member(number) for number in range(servers, servers + clients)],
    )


def make_consul_datacenters(
    program: Path, folder: Path, *names: str, settings: Mapping[str, Any] | None = None
) -> list[ConsulCluster]:
    """Return datacenters of one server each that know each other, not started."""
    wan = free_ports(len(names))
    return [
        make_consul_cluster(
            program,
            folder / name,
            servers=1,
            clients=0,
            datacenter=name,
            wan=port,
            join_wan=[each for each in wan if each != port],
            settings=settings,
        )
        for name, port in zip(names, wan, strict=True)
    ]
