"""What a ``dns://`` URL says: which servers, and under which names services are asked for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from meshkit.model import Endpoint
from meshkit.registry.url import RegistryUrl

PORT = 53
SERVICE = "{service}"
# The transports an instance may have, each with the URL's parameter of that name.
TRANSPORTS = ("http", "grpc")
LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
NAME = re.compile(rf"{LABEL}(\.{LABEL})*")
NAME_LENGTH = 253
HOST = re.compile(r"[A-Za-z0-9._:%-]+")  # a name, an IPv4 or an IPv6 address with its scope

RESOLV_CONF = Path("/etc/resolv.conf")
# resolv.conf(5): at most three servers count, and without any the local machine is asked.
SYSTEM_SERVERS = 3
LOCAL = Endpoint("127.0.0.1", PORT)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DnsOptions:
    """Whom to ask, and for what.

    Attributes:
        servers: tried in this order; empty for those of the system.
        templates: by transport, the SRV name with ``{service}`` where the service's name stands.
    """

    servers: tuple[Endpoint, ...]
    templates: Mapping[str, str]

    def current_servers(self) -> tuple[Endpoint, ...]:
        """Return the servers to ask now: the system's may change while we run."""
        return self.servers or system_servers()

    def names(self, service: str) -> dict[str, str]:
        """Return the SRV name to ask for, by transport."""
        return {
            transport: template.replace(SERVICE, service)
            for transport, template in self.templates.items()
        }


def read_options(url: RegistryUrl) -> DnsOptions:
    """Read ``dns://[SERVER[,SERVER...]]/DOMAIN[?http=TEMPLATE][&grpc=TEMPLATE]``.

    A server is a host with an optional port; IPv6 addresses stand in brackets. A template is put
    before the domain; the default is ``http={service}``.

    Raises:
        RegistryUrlError: a part is not usable; the message names it.
    """
    url.only(*TRANSPORTS)
    if url.username or url.password:
        raise url.error("DNS takes no user or password")
    domain = url.path.strip("/").removesuffix(".")
    if not domain:
        raise url.error("it needs a domain, as in dns://127.0.0.1:8600/service.consul")
    templates = dict(url.params) or {"http": SERVICE}
    for transport, template in templates.items():
        if SERVICE not in template:
            raise url.error(
                f"{transport}= needs {SERVICE}, as in {transport}=_{transport}._tcp.{SERVICE}"
            )
        templates[transport] = full = f"{template}.{domain}"
        example = full.replace(SERVICE, "x")
        if not NAME.fullmatch(example) or len(example) > NAME_LENGTH:
            raise url.error(f"{full!r} is not a domain name")
    return DnsOptions(servers=_servers(url), templates=templates)


def _servers(url: RegistryUrl) -> tuple[Endpoint, ...]:
    if not url.host:
        return ()
    try:
        return tuple(_server(text) for text in url.host.split(","))
    except ValueError as error:
        raise url.error(str(error)) from None


def _server(text: str) -> Endpoint:
    """Read ``host``, ``host:port``, ``[ipv6]`` or ``[ipv6]:port``. Raises ValueError."""
    has_port = ":" in text and not text.endswith("]")
    server = Endpoint.parse(text if has_port else f"{text}:{PORT}")
    if not HOST.fullmatch(server.host):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return server


def system_servers() -> tuple[Endpoint, ...]:
    """Return the name servers in /etc/resolv.conf."""
    try:
        lines = RESOLV_CONF.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    found = [each[1] for each in words if len(each) > 1 and each[0] == "nameserver"]
    return tuple(Endpoint(host, PORT) for host in found[:SYSTEM_SERVERS]) or (LOCAL,)
