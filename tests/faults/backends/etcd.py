"""etcd: a cluster of three members. It is asked through its JSON gateway, not through gRPC."""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.backends.base import Backend, program, wait_until
from tests.faults.backends.secured import ALWAYS, AT_TIMES, ByCertificate, Secured
from tests.servers.etcd import Etcd, etcd_cluster

FORGETS = 15.0
SERVICES = "/meshkit/services"
REQUEST_LIMIT = 5.0
LASTS = dt.timedelta(seconds=25)  # long enough for services to start
EVERYTHING = base64.b64encode(b"\0").decode()  # as key and as range_end
ROOT = {"name": "root", "password": "root-secret"}


class Gateway:
    """Asks one member in JSON. Raises OSError for anything but success.

    Args:
        server: the member.
        context: certificates for TLS, or None.
        user: name and password, or None.
    """

    def __init__(
        self,
        server: Etcd,
        *,
        context: ssl.SSLContext | None = None,
        user: Mapping[str, str] | None = None,
    ) -> None:
        self._server = server
        self._context = context
        self._user = user

    def ask(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """POST the body to ``/v3/<path>``; return what is answered."""
        headers = {}
        if self._user is not None:
            headers["Authorization"] = self._post("auth/authenticate", self._user, {})["token"]
        return self._post(path, body, headers)

    def up(self, service: str) -> list[str]:
        """Ids of the service's entries that say they may be called."""
        prefix = f"{SERVICES}/{service}/"
        ends = {"key": prefix, "range_end": f"{SERVICES}/{service}0"}  # 0 follows on /
        coded = {name: base64.b64encode(end.encode()).decode() for name, end in ends.items()}
        found = [
            json.loads(base64.b64decode(entry["value"]))
            for entry in self.ask("kv/range", coded).get("kvs", ())
        ]
        return sorted(each["id"] for each in found if each["status"] == "up")

    def _post(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        host, port = "127.0.0.1", self._server.client_port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=REQUEST_LIMIT, context=self._context)
            if self._context
            else http.client.HTTPConnection(host, port, timeout=REQUEST_LIMIT)
        )
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(body), dict(headers))
            answer = connection.getresponse()
            content: dict[str, Any] = json.loads(answer.read())
        except http.client.HTTPException as error:
            raise OSError(f"etcd: {error!r}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"etcd: {path}: {answer.status} {content}")
        return content


class EtcdByPassword(Secured):
    """A member that asks for a password; the weak user's is changed.

    What was opened before goes on, so the member is restarted; a lease is kept alive without any
    right, so it is consumers who are refused.
    """

    name = "etcd"
    forgets = FORGETS
    told = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = Etcd(program("etcd"), folder)
        self.servers = [self._server]
        self._root = Gateway(self._server, user=ROOT)

    def start(self) -> None:
        super().start()
        anyone = Gateway(self._server)
        for role in ("root", "all"):
            anyone.ask("auth/role/add", {"name": role})
        everything = {"permType": "READWRITE", "key": EVERYTHING, "range_end": EVERYTHING}
        anyone.ask("auth/role/grant", {"name": "all", "perm": everything})
        for user, role in (("root", "root"), (ALWAYS, "all"), (AT_TIMES, "all")):
            password = ROOT["password"] if user == "root" else self._write_password(user, "first")
            anyone.ask("auth/user/add", {"name": user, "password": password})
            anyone.ask("auth/user/grant", {"user": user, "role": role})
        anyone.ask("auth/enable", {})

    def url(self, addresses: Sequence[str] = ()) -> str:
        return f"etcd://{ALWAYS}@{self._server.address}?password_file={self.folder / ALWAYS}"

    def weak_url(self) -> str:
        return f"etcd://{AT_TIMES}@{self._server.address}?password_file={self.folder / AT_TIMES}"

    def spoil(self) -> None:
        self._root.ask("auth/user/changepw", {"name": AT_TIMES, "password": "second"})
        self._server.restart()

    def renew(self) -> None:
        self._write_password(AT_TIMES, "second")

    def registered(self, service: str) -> list[str]:
        return self._root.up(service)

    def _write_password(self, user: str, password: str) -> str:
        (self.folder / user).write_text(password)
        return password


class EtcdByCertificate(ByCertificate):
    """A member that asks for a certificate.

    The weak one runs out by itself: new files are looked at only once the old ones are refused.
    """

    name = "etcd"
    forgets = FORGETS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        known = self.certificates
        arguments = [
            *("--cert-file", str(known.cert("server")), "--key-file", str(known.key("server"))),
            *("--trusted-ca-file", str(known.ca), "--client-cert-auth"),
        ]
        self._ends_at = 0.0
        self._server = Etcd(program("etcd"), folder, arguments=arguments, tls=True)
        self.servers = [self._server]
        context = ssl.create_default_context(cafile=known.ca)
        context.load_cert_chain(known.cert(ALWAYS), known.key(ALWAYS))
        self._gateway = Gateway(self._server, context=context)

    def url(self, addresses: Sequence[str] = ()) -> str:
        return self._url_with(ALWAYS)

    def prepare(self, service: str) -> None:
        self.certificates.issue(AT_TIMES, lasts=LASTS)
        self._ends_at = time.monotonic() + LASTS.total_seconds()

    def spoil(self) -> None:
        time.sleep(max(0.0, self._ends_at + 1 - time.monotonic()))
        self._server.restart()

    def registered(self, service: str) -> list[str]:
        return self._gateway.up(service)

    def _url_with(self, name: str) -> str:
        return f"etcd+tls://{self._server.address}?{self._parameters(name)}"


class EtcdBackend(Backend):
    name = "etcd"
    forgets = FORGETS
    by_token = EtcdByPassword
    by_certificate = EtcdByCertificate

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._members = etcd_cluster(program("etcd"), folder)
        self.servers = self._members

    @property
    def about(self) -> str:
        connection = http.client.HTTPConnection(self._members[0].address, timeout=REQUEST_LIMIT)
        connection.request("GET", "/version")
        version = json.loads(connection.getresponse().read())["etcdserver"]
        connection.close()
        return f"etcd {version}: 3 members"

    @property
    def addresses(self) -> Sequence[str]:
        return [member.address for member in self._members]

    def url(self, addresses: Sequence[str] = ()) -> str:
        return f"etcd://{','.join(addresses or self.addresses)}"

    def registered(self, service: str) -> list[str]:
        for member in self._members:
            try:
                return Gateway(member).up(service)
            except OSError:
                continue
        raise OSError("no etcd member answers")

    def leader(self) -> Etcd:
        wait_until(lambda: any(member.is_leader() for member in self._members))
        return next(member for member in self._members if member.is_leader())

    def wait_healthy(self) -> None:
        wait_until(lambda: all(member.ready() for member in self._members))
