"""What a Consul URL says, and Consul's own variables where it says nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry.consul.certificates import Certificates, Unusable
from meshkit.registry.consul.tokens import (
    TokenCall,
    call_for_token,
    find_token_call,
    is_word,
    read_token_file,
)
from meshkit.registry.url import RegistryUrl

HOST = "127.0.0.1"
PORT = 8500
TLS_PORT = 8501
DEFAULT = Endpoint(HOST, PORT)
SCHEME = "consul"
TLS_SCHEME = "consul+tls"
UNIX_SCHEME = "consul+unix"
PARAMETERS = ("token", "token_file", "token_call", "dc", "ca", "cert", "key", "verify")
TLS_PARAMETERS = ("ca", "cert", "key", "verify")
# https://developer.hashicorp.com/consul/commands#environment-variables
VARIABLES = {
    "token": "CONSUL_HTTP_TOKEN",
    "token_file": "CONSUL_HTTP_TOKEN_FILE",
    "ca": "CONSUL_CACERT",
    "cert": "CONSUL_CLIENT_CERT",
    "key": "CONSUL_CLIENT_KEY",
    "verify": "CONSUL_HTTP_SSL_VERIFY",
}
ADDRESS = "CONSUL_HTTP_ADDR"
SSL = "CONSUL_HTTP_SSL"
AUTH = "CONSUL_HTTP_AUTH"
TRUE = ("1", "t", "true")
FALSE = ("0", "f", "false")


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
    """

    endpoint: Endpoint = DEFAULT
    socket: Path | None = None
    dc: str = ""
    token: str = dataclasses.field(default="", repr=False)
    token_file: Path | None = None
    token_call: TokenCall | None = dataclasses.field(default=None, repr=False)
    auth: str = dataclasses.field(default="", repr=False)
    certificates: Certificates | None = None

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
        return read_token_file(self.token_file) if self.token_file else self.token


def read_options(url: RegistryUrl, environ: Mapping[str, str]) -> ConsulOptions:
    """Combine the URL with Consul's variables; what the URL says wins.

    A URL that names a host or socket also says by its scheme whether TLS is used;
    ``CONSUL_HTTP_ADDR`` and ``CONSUL_HTTP_SSL`` count only for ``consul://`` without one.

    Raises:
        RegistryUrlError: a parameter or variable is not usable; the message names it.
    """
    url.only(*PARAMETERS)
    if url.username or url.password:
        raise url.error("Consul takes a token, not a user: write ?token=... or ?token_file=...")
    address, tls = _unix(url) if url.scheme == UNIX_SCHEME else _address(url, environ)
    values = _Values(url, environ)
    if not tls and (misplaced := [name for name in TLS_PARAMETERS if name in url.params]):
        raise url.error(f"{misplaced[0]}= needs {TLS_SCHEME}://")
    options = ConsulOptions(
        dc=url.params.get("dc", ""),
        auth=environ.get(AUTH, ""),
        certificates=_certificates(values) if tls else None,
        **_token(url, values),
    )
    if isinstance(address, Path):
        return dataclasses.replace(options, socket=address)
    return dataclasses.replace(options, endpoint=address)


class _Values:
    """Looks a setting up in the URL, then in its variable, and knows where it came from."""

    def __init__(self, url: RegistryUrl, environ: Mapping[str, str]) -> None:
        self._url = url
        self._environ = environ

    def get(self, name: str) -> str:
        return self._url.params.get(name) or self._environ.get(VARIABLES[name], "")

    def error(self, name: str, reason: str) -> RegistryUrlError:
        if self._url.params.get(name):
            return self._url.error(f"{name}= {reason}")
        return RegistryUrlError(f"bad value for {VARIABLES[name]}: it {reason}")

    def flag(self, name: str, *, default: bool) -> bool:
        text = self.get(name)
        if not text:
            return default
        if (flag := _flag(text)) is None:
            raise self.error(name, f"should be true or false, not {text!r}")
        return flag

    def path(self, name: str) -> str | None:
        path = self.get(name)
        if path and not os.access(path, os.R_OK):
            raise self.error(name, f"names {path}, which can't be read")
        return path or None


def _unix(url: RegistryUrl) -> tuple[Path, bool]:
    if url.host or len(url.path) < 2:
        raise url.error(f"a Unix socket is named by its whole path: {UNIX_SCHEME}:///run/x.sock")
    return Path(url.path), False


def _address(url: RegistryUrl, environ: Mapping[str, str]) -> tuple[Endpoint | Path, bool]:
    if url.path.strip("/"):
        raise url.error(f"unexpected path {url.path!r}")
    tls = url.scheme == TLS_SCHEME
    port = TLS_PORT if tls else PORT
    if url.host:
        try:
            return _endpoint(url.host, port), tls
        except ValueError as error:
            raise url.error(str(error)) from None
    wanted = environ.get(SSL, "")
    if wanted and _flag(wanted) is None:
        raise RegistryUrlError(f"bad value for {SSL}: it should be true or false, not {wanted!r}")
    text = environ.get(ADDRESS, "")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if scheme == "unix" and not tls:
        if not rest.startswith("/"):
            raise RegistryUrlError(f"bad value for {ADDRESS}: {text!r} is not unix:///path")
        return Path(rest), False
    if scheme not in ("", "http", "https"):
        fault = "speaks no TLS" if scheme == "unix" else "is unknown"
        raise RegistryUrlError(f"bad value for {ADDRESS}: {scheme}:// {fault}; use host:port")
    try:
        endpoint = _endpoint(rest.rstrip("/"), port)
    except ValueError as error:
        raise RegistryUrlError(f"bad value for {ADDRESS}: {error}") from None
    return endpoint, tls or scheme == "https" or _flag(wanted) is True


def _endpoint(text: str, port: int) -> Endpoint:
    if not text:
        return Endpoint(HOST, port)
    if not is_word(text):
        raise ValueError(f"{text!r} is not host:port")
    bare = ":" not in text or (text.startswith("[") and text.endswith("]"))
    return Endpoint.parse(f"{text}:{port}" if bare else text)


def _token(url: RegistryUrl, values: _Values) -> dict[str, Any]:
    given = [name for name in ("token", "token_file", "token_call") if name in url.params]
    if len(given) > 1:
        raise url.error(f"{given[0]}= and {given[1]}= exclude each other")
    if target := url.params.get("token_call"):
        try:
            return {"token_call": find_token_call(target)}
        except ValueError as error:
            raise url.error(f"token_call= {error}") from None
    # As in Consul's own tools a file wins over a plain token, when neither is in the URL.
    file = "" if "token" in url.params else values.get("token_file")
    if file:
        return {"token_file": Path(file)}
    token = values.get("token")
    if token and not is_word(token):
        raise values.error("token", "holds characters that can't be sent")
    return {"token": token}


def _certificates(values: _Values) -> Certificates:
    ca, certificate, key = values.path("ca"), values.path("cert"), values.path("key")
    if bool(certificate) != bool(key):
        given, missing = ("cert", "key") if certificate else ("key", "cert")
        raise values.error(given, f"needs {missing}= too")
    verify = values.flag("verify", default=True)
    try:
        return Certificates(ca=ca, cert=certificate, key=key, verify=verify)
    except Unusable as error:
        raise values.error(error.parameter, str(error)) from None


def _flag(text: str) -> bool | None:
    lowered = text.lower()
    return True if lowered in TRUE else False if lowered in FALSE else None
