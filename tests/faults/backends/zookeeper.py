"""ZooKeeper: an ensemble of three."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.security import make_digest_acl

from tests.faults.backends.base import Backend, program, wait_until
from tests.faults.backends.secured import ALWAYS, AT_TIMES, ByCertificate, Secured
from tests.servers.ports import free_ports
from tests.servers.zookeeper import ZooKeeper, zookeeper_ensemble

FORGETS = 15.0
SERVICES = "/meshkit/services"
CONNECT_LIMIT = 5.0
PASSWORD = "secret"


class ZooKeeperByUser(Secured):
    """A server whose nodes are for two users; the weak one's permissions are taken and given back.

    A session outlives its permissions, and so do the nodes it has made: it is consumers who are
    refused. ZooKeeper leaves out events of what may not be read, so that they learn of it when
    they make sure, every 30 s, or at once when their connection has to be made anew: the server
    is restarted.
    """

    name = "zookeeper"
    forgets = FORGETS
    told = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = ZooKeeper(program("zookeeper"), folder)
        self.servers = [self._server]

    def url(self, addresses: Sequence[str] = ()) -> str:
        return f"zookeeper://{ALWAYS}:{PASSWORD}@{self._server.address}"

    def weak_url(self) -> str:
        return f"zookeeper://{AT_TIMES}:{PASSWORD}@{self._server.address}"

    def prepare(self, service: str) -> None:
        with self._as_admin() as client:
            client.ensure_path(f"{SERVICES}/{service}")
        self.renew()

    def spoil(self) -> None:
        self._permit(ALWAYS)
        self._server.restart()

    def renew(self) -> None:
        self._permit(ALWAYS, AT_TIMES)

    def registered(self, service: str) -> list[str]:
        with self._as_admin() as client:
            return _up(client, service)

    def _permit(self, *users: str) -> None:
        acl = [make_digest_acl(user, PASSWORD, all=True) for user in users]
        with self._as_admin() as client:
            for service in client.get_children(SERVICES):
                client.set_acls(f"{SERVICES}/{service}", acl)

    @contextlib.contextmanager
    def _as_admin(self) -> Iterator[Any]:
        with connected([self._server], auth_data=[("digest", f"{ALWAYS}:{PASSWORD}")]) as client:
            yield client


class ZooKeeperByCertificate(ByCertificate):
    """A server that asks for a certificate."""

    name = "zookeeper"
    forgets = FORGETS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (self._port,) = free_ports(1)
        known = self.certificates
        both = folder / "both.pem"  # ZooKeeper wants certificate and key in one file
        both.write_text(known.key("server").read_text() + known.cert("server").read_text())
        settings = {
            "secureClientPort": self._port,
            "secureClientPortAddress": "127.0.0.1",
            "serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory",
            "authProvider.x509": "org.apache.zookeeper.server.auth.X509AuthenticationProvider",
            "ssl.keyStore.location": both,
            "ssl.keyStore.type": "PEM",
            "ssl.trustStore.location": known.ca,
            "ssl.trustStore.type": "PEM",
        }
        self._server = ZooKeeper(program("zookeeper"), folder, settings=settings)
        self.servers = [self._server]

    def url(self, addresses: Sequence[str] = ()) -> str:
        return self._url_with(ALWAYS)

    def registered(self, service: str) -> list[str]:
        with connected([self._server]) as client:
            return _up(client, service)

    def _url_with(self, name: str) -> str:
        return f"zookeeper+tls://127.0.0.1:{self._port}?{self._parameters(name)}"


class ZooKeeperBackend(Backend):
    name = "zookeeper"
    forgets = FORGETS
    by_token = ZooKeeperByUser
    by_certificate = ZooKeeperByCertificate

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ensemble = zookeeper_ensemble(program("zookeeper"), folder)
        self.servers = self._ensemble

    @property
    def about(self) -> str:
        version = self._ensemble[0].ask("srvr").partition("version: ")[2].partition("-")[0]
        return f"ZooKeeper {version}: 3 servers"

    @property
    def addresses(self) -> Sequence[str]:
        return [server.address for server in self._ensemble]

    def url(self, addresses: Sequence[str] = ()) -> str:
        return f"zookeeper://{','.join(addresses or self.addresses)}"

    def registered(self, service: str) -> list[str]:
        with connected(self._ensemble) as client:
            return _up(client, service)

    def leader(self) -> ZooKeeper:
        wait_until(lambda: any(server.is_leader() for server in self._ensemble))
        return next(server for server in self._ensemble if server.is_leader())

    def wait_healthy(self) -> None:
        wait_until(lambda: all(server.ready() for server in self._ensemble))


@contextlib.contextmanager
def connected(servers: Sequence[ZooKeeper], **options: Any) -> Iterator[Any]:
    """A client of its own, for as long as a question takes. Raises OSError."""
    hosts = ",".join(server.address for server in servers)
    client = KazooClient(hosts, timeout=CONNECT_LIMIT, **options)
    try:
        client.start(timeout=CONNECT_LIMIT)
        yield client
    except (KazooException, KazooTimeoutError) as error:
        raise OSError(f"ZooKeeper does not answer: {error!r}") from error
    finally:
        client.stop()
        client.close()


def _up(client: Any, service: str) -> list[str]:
    """Return the ids of a service's nodes that say they may be called."""
    folder = f"{SERVICES}/{service}"
    found = []
    try:
        for name in client.get_children(folder):
            with contextlib.suppress(NoNodeError):  # gone meanwhile
                if json.loads(client.get(f"{folder}/{name}")[0])["enabled"]:
                    found.append(name)
    except NoNodeError:
        return []
    return sorted(found)
