"""What a ZooKeeper URL says."""

from __future__ import annotations

import dataclasses
import os

from meshkit.model import Endpoint
from meshkit.registry.certificates import Certificates, Unusable
from meshkit.registry.url import RegistryUrl
from meshkit.registry.zookeeper.tls import TlsSocket

PORT = 2181
TLS_PORT = 2281  # as in ZooKeeper's own examples
TLS_SCHEME = "zookeeper+tls"
PATH = "/meshkit"
PARAMETERS = ("session", "acl", "ca", "cert", "key", "check_hostname")
TLS_PARAMETERS = ("ca", "cert", "key", "check_hostname")
SESSION = 10.0
# By default a server grants from 2 to 20 of its ticks of 2 s, whatever it is asked for.
# https://zookeeper.apache.org/doc/current/zookeeperAdmin.html (minSessionTimeout)
SESSION_LIMITS = 2.0, 40.0
ACLS = "readable", "private"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ZooKeeperOptions:
    """How to reach ZooKeeper, as whom, and where our nodes are.

    Attributes:
        servers: of one ensemble; any of them will do.
        path: what our nodes are under; empty for the root.
        username, password: for digest authentication; no user, no authentication.
        private: nodes that we make are for this user only; otherwise others may read them.
            Without a user anyone may do anything with them.
        session: seconds without a sign of life after which our instances are gone.
        certificates: to trust and to show, or None to speak without TLS.
    """

    servers: tuple[Endpoint, ...]
    path: str = PATH
    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    private: bool = False
    session: float = SESSION
    certificates: Certificates | None = None

    @property
    def place(self) -> str:
        """The servers, for messages."""
        return ",".join(str(server) for server in self.servers)


def read_options(url: RegistryUrl) -> ZooKeeperOptions:
    """Read the URL. Raises RegistryUrlError that names what is not usable."""
    url.only(*PARAMETERS)
    tls = url.scheme == TLS_SCHEME
    if not tls and (misplaced := [name for name in TLS_PARAMETERS if name in url.params]):
        raise url.error(f"{misplaced[0]}= needs {TLS_SCHEME}://")
    if bool(url.username) != bool(url.password) or ":" in url.username:
        raise url.error("write credentials as user:password@, '@', ':' and '/' in them as %..")
    acl = _choice(url, "acl", ACLS)
    if acl == "private" and not url.username:
        raise url.error("acl=private needs user:password@")
    return ZooKeeperOptions(
        servers=_servers(url, TLS_PORT if tls else PORT),
        path=_path(url),
        username=url.username,
        password=url.password,
        private=acl == "private",
        session=_session(url),
        certificates=_certificates(url) if tls else None,
    )


def _servers(url: RegistryUrl, port: int) -> tuple[Endpoint, ...]:
    try:
        return tuple(_endpoint(text.strip(), port) for text in url.host.split(","))
    except ValueError as error:
        raise url.error(str(error)) from None


def _endpoint(text: str, port: int) -> Endpoint:
    if not text or not text.isprintable() or " " in text:
        raise ValueError("it names no server: write zookeeper://host:port,host:port")
    bare = ":" not in text or (text.startswith("[") and text.endswith("]"))
    return Endpoint.parse(f"{text}:{port}" if bare else text)


def _path(url: RegistryUrl) -> str:
    if not url.path:
        return PATH
    path = url.path.rstrip("/")
    for name in path.split("/")[1:]:
        # https://zookeeper.apache.org/doc/current/zookeeperProgrammers.html#ch_zkDataModel
        if name in ("", ".", "..") or not name.isprintable():
            raise url.error(f"{url.path!r} is no path of ZooKeeper's")
    if path.startswith("/zookeeper/") or path == "/zookeeper":
        raise url.error("/zookeeper is ZooKeeper's own; choose another path")
    return path


def _session(url: RegistryUrl) -> float:
    text, (least, most) = url.params.get("session", str(SESSION)), SESSION_LIMITS
    try:
        seconds = float(text)
    except ValueError:
        raise url.error(f"session= should be a number of seconds, not {text!r}") from None
    if not least <= seconds <= most:
        raise url.error(f"session= should be from {least:.0f} to {most:.0f} seconds, not {text}")
    return seconds


def _choice(url: RegistryUrl, name: str, known: tuple[str, ...]) -> str:
    text = url.params.get(name, known[0])
    if text not in known:
        raise url.error(f"{name}= should be {' or '.join(known)}, not {text!r}")
    return text


def _certificates(url: RegistryUrl) -> Certificates:
    ca, cert, key = (_file(url, name) for name in ("ca", "cert", "key"))
    check_hostname = _choice(url, "check_hostname", ("true", "false")) == "true"
    if bool(cert) != bool(key):
        given, missing = ("cert", "key") if cert else ("key", "cert")
        raise url.error(f"{given}= needs {missing}= too")
    try:
        return Certificates(
            "ZooKeeper",
            ca=ca,
            cert=cert,
            key=key,
            check_hostname=check_hostname,
            socket_class=TlsSocket,
        )
    except Unusable as error:
        raise url.error(f"{error.parameter}= {error}") from None


def _file(url: RegistryUrl, name: str) -> str | None:
    path = url.params.get(name)
    if path and not os.access(path, os.R_OK):
        raise url.error(f"{name}= names {path}, which can't be read")
    return path or None
