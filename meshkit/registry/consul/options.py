"""How Consul is reached, as whom, and what is asked of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from meshkit.model import Endpoint
from meshkit.registry.certificates import Certificates
from meshkit.registry.consul.tokens import TokenCall, call_for_token
from meshkit.registry.tokens import read_token_file

DEFAULT = Endpoint("127.0.0.1", 8500)
SCHEME = "consul"
TLS_SCHEME = "consul+tls"
UNIX_SCHEME = "consul+unix"
CHECK_INTERVAL = 10.0
# Of the 200 connections that Consul allows a client address for all its processes.
WATCH_CONNECTIONS = 8
KV_PREFIX = "meshkit"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConsulOptions:
    """How to reach Consul, and as whom.

    Attributes:
        endpoint: the agent's HTTP address.
        socket: the agent's Unix socket, used instead of ``endpoint``.
        dc: the datacenter to read from; empty for the agent's own.
        token: the ACL token, empty for none.
        token_file: read for each request and used instead of ``token``, so that it can rotate.
        token_call: asked for each request and used instead of both; see ``TokenCall``.
        auth: ``user:password`` for a proxy in front of the agent, empty for none.
        certificates: to trust and to show, or None to speak without TLS.
        checks: what the agent checks by itself, beside our heartbeat: ``http``, ``grpc``.
        check_interval: seconds between such checks.
        cached: watch through the agent's cache, which merges the same watches of one machine.
        watch_connections: how many services are watched on a connection each; the others share.
        kv_prefix: what stands before all keys, without a slash at the end; may be empty.
    """

    endpoint: Endpoint = DEFAULT
    socket: Path | None = None
    dc: str = ""
    token: str = dataclasses.field(default="", repr=False)
    token_file: Path | None = None
    token_call: TokenCall | None = dataclasses.field(default=None, repr=False)
    auth: str = dataclasses.field(default="", repr=False)
    certificates: Certificates | None = None
    checks: tuple[str, ...] = ()
    check_interval: float = CHECK_INTERVAL
    cached: bool = False
    watch_connections: int = WATCH_CONNECTIONS
    kv_prefix: str = KV_PREFIX

    @property
    def address(self) -> Endpoint | Path:
        """Where to connect to."""
        return self.socket or self.endpoint

    @property
    def url(self) -> str:
        """A URL that names the same agent, without parameters."""
        if self.socket is not None:
            return f"{UNIX_SCHEME}://{self.socket}"
        return f"{SCHEME if self.certificates is None else TLS_SCHEME}://{self.endpoint}"

    @property
    def has_token(self) -> bool:
        """Whether a token is sent, so that permissions may be missing."""
        return bool(self.token or self.token_file or self.token_call)

    async def read_token(self) -> str:
        """Return the token to use now, empty for none.

        Raises:
            RegistryDenied: the token's file or function does not give one.
        """
        if self.token_call is not None:
            return await call_for_token(self.token_call)
        if self.token_file is None:
            return self.token
        return read_token_file(self.token_file, whose="Consul's")
