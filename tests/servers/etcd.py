"""etcd: one member of its own, or several that form a cluster."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess

REQUEST_LIMIT = 5.0


class Etcd(ServerProcess):
    """One etcd member.

    Args:
        program: the etcd program.
        folder: for its log and data.
        name: the member's name within its cluster.
        ports: client, peer and metrics port on 127.0.0.1; free ones unless given.
        peers: all members as ``name=peer URL``; itself alone unless given.
        arguments: more of etcd's own, such as those for TLS.
        tls: clients are spoken to in TLS, by the certificates in ``arguments``.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        name: str = "m0",
        ports: Sequence[int] = (),
        peers: Sequence[str] = (),
        arguments: Sequence[str] = (),
        tls: bool = False,
    ) -> None:
        super().__init__(program, folder)
        self.name = name
        self.client_port, self.peer_port, self.metrics_port = ports or free_ports(3)
        self._peers = tuple(peers) or (f"{name}=http://127.0.0.1:{self.peer_port}",)
        self._arguments = tuple(arguments)
        self._scheme = "https" if tls else "http"

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def url(self) -> str:
        """It as a registry."""
        return f"etcd://{self.address}"

    def command(self) -> list[str]:
        client, peer = f"{self._scheme}://{self.address}", f"http://127.0.0.1:{self.peer_port}"
        return [
            *("--name", self.name),
            *("--data-dir", str(self.folder / "data")),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--listen-metrics-urls", f"http://127.0.0.1:{self.metrics_port}"),
            *("--initial-cluster", ",".join(self._peers), "--initial-cluster-state", "new"),
            *("--heartbeat-interval", "100", "--election-timeout", "1000"),
            "--unsafe-no-fsync",
            *self._arguments,
        ]

    def ready(self) -> bool:
        """Whether it answers and its cluster has a leader."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, REQUEST_LIMIT)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def is_leader(self) -> bool:
        """Whether it leads its cluster."""
        try:
            return "\netcd_server_is_leader 1" in self.metrics()
        except OSError:
            return False

    def metrics(self) -> str:
        """Return what it tells of itself, in Prometheus's form."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, REQUEST_LIMIT)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def ask(self, path: str, token: str = "", **body: Any) -> Any:
        """Call etcd's JSON gateway, as ``/v3/kv/put``; bytes travel in base64."""
        connection = http.client.HTTPConnection("127.0.0.1", self.client_port, REQUEST_LIMIT)
        try:
            coded = {
                name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
                for name, value in body.items()
            }
            connection.request("POST", path, json.dumps(coded), {"Authorization": token})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            assert answer.status == 200, content
            return content
        finally:
            connection.close()

    def put(self, key: str | bytes, value: bytes) -> None:
        """Write one key."""
        self.ask("/v3/kv/put", key=key if isinstance(key, bytes) else key.encode(), value=value)

    def delete(self, key: str) -> None:
        """Remove one key."""
        self.ask("/v3/kv/deleterange", key=key.encode())

    def entries(self, prefix: str) -> dict[str, bytes]:
        """Return all keys that begin so, with their values."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self.ask("/v3/kv/range", key=prefix.encode(), range_end=end.encode())
        return {
            base64.b64decode(each["key"]).decode(): base64.b64decode(each.get("value", ""))
            for each in found.get("kvs", ())
        }

    def leases(self) -> set[int]:
        """Return the leases that have not ended."""
        return {int(each["ID"]) for each in self.ask("/v3/lease/leases").get("leases", ())}

    def empty(self) -> None:
        """Remove its data; to be called while it is down."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)


def etcd_cluster(program: Path, folder: Path, *, size: int = 3) -> list[Etcd]:
    """Return the members of a cluster, not started: each is ready once most of them run."""
    names = [f"m{number}" for number in range(size)]
    ports = free_ports(3 * size)
    trios = [ports[3 * number : 3 * number + 3] for number in range(size)]
    peers = [f"{name}=http://127.0.0.1:{trio[1]}" for name, trio in zip(names, trios, strict=True)]
    return [
        Etcd(program, folder / name, name=name, ports=trio, peers=peers)
        for name, trio in zip(names, trios, strict=True)
    ]
