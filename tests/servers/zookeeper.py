"""ZooKeeper: a server of its own, or several that form an ensemble."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess

REQUEST_LIMIT = 5.0
TICK = 500  # milliseconds; sessions may last from 2 to 20 of them, unless set otherwise


class ZooKeeper(ServerProcess):
    """One ZooKeeper server.

    Args:
        program: starts ZooKeeper with the zoo.cfg it is given.
        folder: for its log, settings and data.
        number: its id within the ensemble.
        ports: client, peer and election port on 127.0.0.1; free ones unless given.
        ensemble: all ensemble lines of zoo.cfg; none for a server of its own.
        settings: more of zoo.cfg.
        secure: listen for TLS too, by the certificates in ``settings``.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        number: int = 1,
        ports: Sequence[int] = (),
        ensemble: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        secure: bool = False,
    ) -> None:
        super().__init__(program, folder)
        self.number = number
        self.client_port, self.peer_port, self.election_port = ports or free_ports(3)
        self._ensemble = tuple(ensemble)
        self._settings = dict(settings or {})
        self.secure_port = 0
        if secure:
            (self.secure_port,) = free_ports(1)
            self._settings["secureClientPort"] = self.secure_port
            self._settings["secureClientPortAddress"] = "127.0.0.1"
            self._settings["serverCnxnFactory"] = (
                "org.apache.zookeeper.server.NettyServerCnxnFactory"
            )

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def url(self) -> str:
        """It as a registry."""
        return f"zookeeper://{self.address}"

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (data / "myid").write_text(str(self.number))
        settings = {
            "dataDir": data,
            "clientPort": self.client_port,
            "clientPortAddress": "127.0.0.1",
            "tickTime": TICK,
            "initLimit": 10,
            "syncLimit": 4,
            "maxSessionTimeout": 60_000,
            "maxClientCnxns": 0,
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "srvr,mntr,cons,ruok",
            "forceSync": "no",
        } | self._settings
        lines = [f"{name}={value}" for name, value in settings.items()]
        file = self.folder / "zoo.cfg"
        file.write_text("\n".join([*lines, *self._ensemble, ""]))
        return [str(file)]

    def ready(self) -> bool:
        """Whether it serves clients, which takes a leader."""
        return "Mode:" in self.ask("srvr")

    def is_leader(self) -> bool:
        """Whether it leads its ensemble."""
        return "Mode: leader" in self.ask("srvr")

    def ask(self, word: str) -> str:
        """Send one of ZooKeeper's four-letter words; return its answer, empty for none."""
        try:
            address = ("127.0.0.1", self.client_port)
            with socket.create_connection(address, REQUEST_LIMIT) as connection:
                connection.sendall(word.encode())
                connection.settimeout(REQUEST_LIMIT)
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        except OSError:
            return ""

    def empty(self) -> None:
        """Remove its data; to be called while it is down."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)


def zookeeper_ensemble(program: Path, folder: Path, *, size: int = 3) -> list[ZooKeeper]:
    """Return the servers of an ensemble, not started: each is ready once most of them run."""
    ports = free_ports(3 * size)
    trios = [ports[3 * number : 3 * number + 3] for number in range(size)]
    ensemble = [
        f"server.{number}=127.0.0.1:{trio[1]}:{trio[2]}" for number, trio in enumerate(trios, 1)
    ]
    return [
        ZooKeeper(program, folder / f"z{number}", number=number, ports=trio, ensemble=ensemble)
        for number, trio in enumerate(trios, 1)
    ]
