"""Consul agents: a server and client in one process, in memory, and empty at each start."""

from __future__ import annotations

import dataclasses
import http.client
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess

REQUEST_LIMIT = 10.0
CLEAR_LIMIT = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where one agent listens on 127.0.0.1."""

    http: int
    https: int
    dns: int
    server: int
    serf_lan: int
    serf_wan: int = -1  # -1: no other datacenter is spoken to


def free_consul_ports(count: int) -> list[Ports]:
    """Return the ports of so many agents; one call for all that run at once."""
    fields = ("http", "https", "dns", "server", "serf_lan")
    found = free_ports(count * len(fields))
    return [
        Ports(**dict(zip(fields, found[first : first + len(fields)], strict=True)))
        for first in range(0, len(found), len(fields))
    ]


class Consul(ServerProcess):
    """A development agent with a datacenter of its own.

    Args:
        program: the consul program.
        folder: for its log and settings.
        connections: how many a client address may hold; Consul's own 200 unless given.
        settings: more of the agent's configuration.
        tls: listen over https too, by the certificates in ``settings``.
        alone: wait in vain for two more servers, so that there is no leader.
        ports: where it listens; free ones unless given.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        connections: int | None = None,
        settings: Mapping[str, Any] | None = None,
        tls: bool = False,
        alone: bool = False,
        ports: Ports | None = None,
    ) -> None:
        super().__init__(program, folder)
        self.ports = ports or free_consul_ports(1)[0]
        self.token = ""
        self._tls = tls
        self._alone = alone
        self._settings = dict(settings or {})
        if connections is not None:
            self._settings["limits"] = {"http_max_conns_per_client": connections}

    @property
    def address(self) -> str:
        """host:port of its HTTP API."""
        return f"127.0.0.1:{self.ports.http}"

    @property
    def url(self) -> str:
        """It as a registry."""
        return f"consul://{self.address}"

    def command(self) -> list[str]:
        kind = ["-server", "-bootstrap-expect=3", f"-data-dir={self.folder / 'data'}"]
        file = self.write_settings({"node_name": "test"})
        return ["agent", *(kind if self._alone else ["-dev"]), f"-config-file={file}"]

    def write_settings(self, defaults: Mapping[str, Any]) -> Path:
        """Write the agent's configuration, in which its own settings win over ``defaults``."""
        ports = dataclasses.asdict(self.ports) | {"grpc": -1}
        if not self._tls:
            ports["https"] = -1
        common = {"bind_addr": "127.0.0.1", "ports": ports}
        file = self.folder / "settings.json"
        file.write_text(json.dumps(common | dict(defaults) | self._settings))
        return file

    def ready(self) -> bool:
        try:
            if self._alone:
                return self.request("GET", "/v1/agent/self")[0] == 200
            status, leader = self.request("GET", "/v1/status/leader")
            if status != 200 or not leader:
                return False
            # With ACLs nothing more can be read until a token is made.
            status, nodes = self.request("GET", "/v1/catalog/nodes")
        except OSError:
            return False
        return status == 200 and (bool(nodes) or "acl" in self._settings)

    def request(
        self, method: str, path: str, body: object = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Send one request by hand; return status and decoded JSON, or text that is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.http, REQUEST_LIMIT)
        try:
            headers = {"X-Consul-Token": self.token if token is None else token}
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text) if text else None
        except ValueError:
            return answer.status, text

    def get(self, path: str) -> Any:
        """GET what must be there."""
        status, content = self.request("GET", path)
        assert status == 200, f"GET {path}: {status} {content}"
        return content

    def put(self, path: str, body: object = None) -> Any:
        """PUT what must be accepted."""
        status, content = self.request("PUT", path, body)
        assert status == 200, f"PUT {path}: {status} {content}"
        return content

    def clear(self) -> None:
        """Deregister all services, and wait until the catalog shows it."""
        for service_id in self.get("/v1/agent/services"):
            self.put(f"/v1/agent/service/deregister/{service_id}")
        deadline = time.monotonic() + CLEAR_LIMIT
        while set(self.get("/v1/catalog/services")) > {"consul"}:
            assert time.monotonic() < deadline, "Consul keeps services that were deregistered"
            time.sleep(0.01)
