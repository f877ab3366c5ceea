"""What a Consul URL says, and Consul's own variables where it says nothing."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registry.certificates import Certificates, Unusable
from meshkit.registry.consul.options import DEFAULT, TLS_SCHEME, UNIX_SCHEME, ConsulOptions
from meshkit.registry.consul.tokens import find_token_call
from meshkit.registry.tokens import is_word
from meshkit.registry.url import RegistryUrl

TLS_PORT = 8501
TLS_PARAMETERS = ("ca", "cert", "key", "verify")
PARAMETERS = (
    *("token", "token_file", "token_call", "dc", *TLS_PARAMETERS),
    *("check", "check_interval", "cached", "watch_connections", "kv_prefix"),
)
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
CHECKS = ("http", "grpc")
SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")
COUNT = re.compile(r"[0-9]{1,4}")
KV_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")


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
        **_behaviour(url),
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
    port = TLS_PORT if tls else DEFAULT.port
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
        return Endpoint(DEFAULT.host, port)
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


def _behaviour(url: RegistryUrl) -> dict[str, Any]:
    """Read what has no variable of Consul's."""
    if "check_interval" in url.params and "check" not in url.params:
        raise url.error("check_interval= needs check= too")
    found: dict[str, Any] = {}
    for name, (field, parse) in BEHAVIOUR.items():
        if name in url.params:
            text = url.params[name]
            try:
                found[field] = parse(text)
            except ValueError as error:
                raise url.error(f"{name}= should be {error}, not {text!r}") from None
    return found


def _checks(text: str) -> tuple[str, ...]:
    kinds = text.split(",")
    if set(kinds) - set(CHECKS):
        raise ValueError("http, grpc or http,grpc")
    return tuple(kind for kind in CHECKS if kind in kinds)


def _seconds(text: str) -> float:
    found = SECONDS.fullmatch(text)
    if not found or float(found[1]) < 1:
        raise ValueError("seconds, at least 1")
    return float(found[1])


def _truth(text: str) -> bool:
    if (flag := _flag(text)) is None:
        raise ValueError("true or false")
    return flag


def _count(text: str) -> int:
    if not COUNT.fullmatch(text):
        raise ValueError("a number")
    return int(text)


def _prefix(text: str) -> str:
    prefix = text.strip("/")
    if prefix and (not KV_PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError("words joined by slashes")
    return prefix


BEHAVIOUR: dict[str, tuple[str, Callable[[str], object]]] = {
    "check": ("checks", _checks),
    "check_interval": ("check_interval", _seconds),
    "cached": ("cached", _truth),
    "watch_connections": ("watch_connections", _count),
    "kv_prefix": ("kv_prefix", _prefix),
}


def _certificates(values: _Values) -> Certificates:
    ca, certificate, key = values.path("ca"), values.path("cert"), values.path("key")
    if bool(certificate) != bool(key):
        given, missing = ("cert", "key") if certificate else ("key", "cert")
        raise values.error(given, f"needs {missing}= too")
    verify = values.flag("verify", default=True)
    try:
        return Certificates("Consul", ca=ca, cert=certificate, key=key, verify=verify)
    except Unusable as error:
        raise values.error(error.parameter, str(error)) from None


def _flag(text: str) -> bool | None:
    lowered = text.lower()
    return True if lowered in TRUE else False if lowered in FALSE else None
