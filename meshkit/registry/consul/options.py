"""What a Consul URL says, and Consul's own variables where it says nothing."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from meshkit.errors import RegistryDenied, RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry.url import RegistryUrl

HOST = "127.0.0.1"
PORT = 8500
TLS_PORT = 8501
SCHEME = "consul"
TLS_SCHEME = "consul+tls"
PARAMETERS = ("token", "token_file", "dc", "ca", "cert", "key", "verify")
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
TRUE = ("1", "t", "true")
FALSE = ("0", "f", "false")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ConsulOptions:
    """How to reach Consul, and as whom.

    Attributes:
        endpoint: the agent's HTTP address.
        dc: the datacenter to read from; empty for the agent's own.
        token: the ACL token, empty for none.
        token_file: read for each request and used instead of ``token``, so that it can rotate.
        context: certificates to trust and to show, or None to speak without TLS.
    """

    endpoint: Endpoint
    dc: str = ""
    token: str = dataclasses.field(default="", repr=False)
    token_file: Path | None = None
    context: ssl.SSLContext | None = None

    @property
    def scheme(self) -> str:
        """The scheme of a URL that says the same."""
        return SCHEME if self.context is None else TLS_SCHEME

    def read_token(self) -> str:
        """Return the token to use now, empty for none.

        Raises:
            RegistryDenied: the token file can't be read, or holds no token.
        """
        if self.token_file is None:
            return self.token
        try:
            token = self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise RegistryDenied(
                f"Consul's token file {self.token_file} can't be read: {reason}"
            ) from None
        if not _is_word(token):
            raise RegistryDenied(f"Consul's token file {self.token_file} holds no token")
        return token


def read_options(url: RegistryUrl, environ: Mapping[str, str]) -> ConsulOptions:
    """Combine the URL with Consul's variables; what the URL says wins.

    A URL that names a host also says by its scheme whether TLS is used; ``CONSUL_HTTP_ADDR``
    and ``CONSUL_HTTP_SSL`` count only for ``consul://`` without one.

    Raises:
        RegistryUrlError: a parameter or variable is not usable; the message names it.
    """
    url.only(*PARAMETERS)
    if url.username or url.password:
        raise url.error("Consul takes a token, not a user: write ?token=... or ?token_file=...")
    if url.path.strip("/"):
        raise url.error(f"unexpected path {url.path!r}")
    endpoint, tls = _address(url, environ)
    values = _Values(url, environ)
    if not tls and (misplaced := [name for name in TLS_PARAMETERS if name in url.params]):
        raise url.error(f"{misplaced[0]}= needs {TLS_SCHEME}://")
    token, token_file = _token(url, values)
    return ConsulOptions(
        endpoint=endpoint,
        dc=url.params.get("dc", ""),
        token=token,
        token_file=token_file,
        context=_context(values) if tls else None,
    )


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


def _address(url: RegistryUrl, environ: Mapping[str, str]) -> tuple[Endpoint, bool]:
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
    if scheme not in ("", "http", "https"):
        fault = "is not supported yet" if scheme == "unix" else "is unknown"
        raise RegistryUrlError(f"bad value for {ADDRESS}: {scheme}:// {fault}; use host:port")
    try:
        endpoint = _endpoint(rest.rstrip("/"), port)
    except ValueError as error:
        raise RegistryUrlError(f"bad value for {ADDRESS}: {error}") from None
    return endpoint, tls or scheme == "https" or _flag(wanted) is True


def _endpoint(text: str, port: int) -> Endpoint:
    if not text:
        return Endpoint(HOST, port)
    if not _is_word(text):
        raise ValueError(f"{text!r} is not host:port")
    bare = ":" not in text or (text.startswith("[") and text.endswith("]"))
    return Endpoint.parse(f"{text}:{port}" if bare else text)


def _token(url: RegistryUrl, values: _Values) -> tuple[str, Path | None]:
    if "token" in url.params and "token_file" in url.params:
        raise url.error("token= and token_file= exclude each other")
    # As in Consul's own tools a file wins over a plain token, when neither is in the URL.
    file = "" if "token" in url.params else values.get("token_file")
    if file:
        return "", Path(file)
    token = values.get("token")
    if token and not _is_word(token):
        raise values.error("token", "holds characters that can't be sent")
    return token, None


def _context(values: _Values) -> ssl.SSLContext:
    ca, certificate, key = values.path("ca"), values.path("cert"), values.path("key")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise values.error("ca", f"names {ca}, which holds no certificate: {error}") from None
    if not values.flag("verify", default=True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if bool(certificate) != bool(key):
        given, missing = ("cert", "key") if certificate else ("key", "cert")
        raise values.error(given, f"needs {missing}= too")
    if certificate:
        try:
            # An encrypted key must not make us ask for its password on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            reason = f"and the key in {key} can't be used together: {error}"
            raise values.error("cert", reason) from None
    return context


def _is_word(text: str) -> bool:
    """Whether it can stand in a header."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _flag(text: str) -> bool | None:
    lowered = text.lower()
    return True if lowered in TRUE else False if lowered in FALSE else None
