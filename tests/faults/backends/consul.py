"""Consul as it is run: three servers, and a client agent that services and consumers speak to."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from pathlib import Path

from tests.faults.backends.base import Backend, program
from tests.faults.backends.secured import ALWAYS, AT_TIMES, ByCertificate, Secured
from tests.servers.consul import Consul
from tests.servers.consul_cluster import ConsulMember, make_consul_cluster

FORGETS = 20.0
RULES = """
service_prefix "" { policy = "write" }
node_prefix "" { policy = "read" }
"""


class ConsulByToken(Secured):
    """An agent that denies what no token allows; the weak token is deleted, and another made."""

    name = "consul"
    forgets = FORGETS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        settings = {"acl": {"enabled": True, "default_policy": "deny"}}
        self._agent = Consul(program("consul"), folder, settings=settings)
        self.servers = [self._agent]
        self._weak: dict[str, str] = {}

    def start(self) -> None:
        super().start()
        self._agent.token = self._agent.put("/v1/acl/bootstrap")["SecretID"]
        self._agent.put("/v1/acl/policy", {"Name": "all", "Rules": RULES})
        for name in (ALWAYS, AT_TIMES):
            self._make(name)

    def url(self, addresses: Sequence[str] = ()) -> str:
        return f"{self._agent.url}?token_file={self.folder / ALWAYS}"

    def weak_url(self) -> str:
        return f"{self._agent.url}?token_file={self.folder / AT_TIMES}"

    def spoil(self) -> None:
        self._agent.request("DELETE", f"/v1/acl/token/{self._weak['AccessorID']}")

    def renew(self) -> None:
        self._make(AT_TIMES)

    def registered(self, service: str) -> list[str]:
        return passing([self._agent], service)

    def _make(self, name: str) -> None:
        self._weak = self._agent.put("/v1/acl/token", {"Policies": [{"Name": "all"}]})
        (self.folder / name).write_text(self._weak["SecretID"])


class ConsulByCertificate(ByCertificate):
    """An agent that asks for a certificate."""

    name = "consul"
    forgets = FORGETS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        known = self.certificates
        settings = {
            "verify_incoming": True,
            "ca_file": str(known.ca),
            "cert_file": str(known.cert("server")),
            "key_file": str(known.key("server")),
        }
        self._agent = Consul(program("consul"), folder, settings=settings, tls=True)
        self.servers = [self._agent]

    def url(self, addresses: Sequence[str] = ()) -> str:
        return self._url_with(ALWAYS)

    def registered(self, service: str) -> list[str]:
        return passing([self._agent], service)

    def _url_with(self, name: str) -> str:
        return f"consul+tls://127.0.0.1:{self._agent.ports.https}?{self._parameters(name)}"


class ConsulBackend(Backend):
    name = "consul"
    forgets = FORGETS
    by_token = ConsulByToken
    by_certificate = ConsulByCertificate
    absent = {  # noqa: RUF012 - a declaration
        "one node cut off": "an instance keeps to the agent that has its registration",
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cluster = make_consul_cluster(program("consul"), folder)
        self.servers = self.cluster.members

    @property
    def about(self) -> str:
        version = self.cluster.client.get("/v1/agent/self")["Config"]["Version"]
        return f"Consul {version}: 3 servers and 1 client agent"

    @property
    def addresses(self) -> Sequence[str]:
        return [self.cluster.client.address]

    def url(self, addresses: Sequence[str] = ()) -> str:
        (address,) = addresses or self.addresses
        return f"consul://{address}"

    def registered(self, service: str) -> list[str]:
        return passing(self.cluster.servers, service)

    def leader(self) -> ConsulMember:
        return self.cluster.leader()

    def wait_healthy(self) -> None:
        self.cluster.wait_healthy()


def passing(agents: Sequence[Consul], service: str) -> list[str]:
    """Ask the first agent that answers for the instances whose checks pass."""
    for agent in agents:
        try:
            status, found = agent.request("GET", f"/v1/health/service/{service}?passing")
        except (OSError, http.client.HTTPException):
            continue
        if status == 200:
            return sorted(entry["Service"]["ID"] for entry in found)
    raise OSError("no Consul agent answers")
