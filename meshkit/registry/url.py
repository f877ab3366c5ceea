"""Registry URLs: which engine, where, and with what settings."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

from meshkit.errors import ConfigError, MeshError, RegistryUrlError
from meshkit.registry.base import Registry

# Looked up here first: reading every installed package's entry points takes longer than
# opening the registry.
BUILT_IN = {
    "local": "meshkit.registry.local:open_local",
    "memory": "meshkit.registry.memory:open_memory",
    "static": "meshkit.registry.static:open_static",
    "consul": "meshkit.registry.consul:open_consul",
    "consul+tls": "meshkit.registry.consul:open_consul",
    "consul+unix": "meshkit.registry.consul:open_consul",
    "zookeeper": "meshkit.registry.zookeeper:open_zookeeper",
    "zookeeper+tls": "meshkit.registry.zookeeper:open_zookeeper",
    "dns": "meshkit.registry.dns:open_dns",
    "kubernetes": "meshkit.registry.kubernetes:open_kubernetes",
    "etcd": "meshkit.registry.etcd:open_etcd",
    "etcd+tls": "meshkit.registry.etcd:open_etcd",
    "skydns+etcd": "meshkit.registry.etcd:open_skydns",
    "skydns+etcd+tls": "meshkit.registry.etcd:open_skydns",
}
# Not imported from here: it builds on this module, as the engines do.
SEVERAL = "meshkit.registry.several:open_several"
# A parameter of every URL, for that module; engines never see it.
REGISTER = "register"
ENTRY_POINTS = "meshkit.registries"
# Names of parameters whose values are not shown; wide, for a mistyped one is shown in an error.
SECRET = re.compile("tok|pass|secret|cred|auth|key", re.IGNORECASE)
# A password that looks like the end of the host: what is before "/" or "?" ends in no port, and an
# "@" is still to come.
CUT_PASSWORD = re.compile(r"[^/?@]*:(?!\d+[/?])[^/?@:\]]*[/?].*@")


@dataclasses.dataclass(frozen=True, slots=True)
class RegistryUrl:
    """A parsed registry URL, ``scheme://rest?name=value``.

    Attributes:
        text: the URL with credentials and secret parameters masked; safe to show.
        scheme: chooses the engine.
        username, password: decoded credentials, empty when there are none.
        host: what stands between ``//`` (or ``@``) and the path, undivided.
        path: from the first slash on, decoded; empty when there is none.
        params: the query's pairs.
    """

    text: str
    scheme: str
    username: str
    password: str = dataclasses.field(repr=False)
    host: str
    path: str
    params: Mapping[str, str] = dataclasses.field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL. Raises RegistryUrlError that lists the known schemes."""
        scheme, separator, rest = url.partition("://")
        if not separator or not scheme:
            raise RegistryUrlError(
                f"malformed registry URL {mask(url)!r}: expected SCHEME://..., "
                f"with one of the schemes {known_schemes()}"
            )
        if CUT_PASSWORD.match(rest):
            raise RegistryUrlError(
                f"malformed registry URL {mask(url)!r}: write '/', '?' and '@' in a user or "
                "password as %2F, %3F and %40"
            )
        # Not urlsplit, which has its own mind on brackets and fragments: a host part may list
        # several addresses here.
        place, _, query = rest.partition("?")
        authority, slash, path = place.partition("/")
        try:
            params = dict(parse_qsl(query, strict_parsing=True) if query else ())
        except ValueError:  # it shows what it did not understand, maybe a secret
            raise RegistryUrlError(
                f"malformed registry URL {mask(url)!r}: what follows '?' should be NAME=VALUE, "
                "several joined by '&'"
            ) from None
        credentials, _, host = authority.rpartition("@")
        username, _, password = credentials.partition(":")
        return cls(
            text=mask(url),
            scheme=scheme.lower(),
            username=unquote(username),
            password=unquote(password),
            host=host,
            path=unquote(slash + path),
            params=params,
        )

    def only(self, *names: str) -> None:
        """Raise RegistryUrlError when a parameter is none of ``names``."""
        unknown = sorted(self.params.keys() - set(names))
        if unknown:
            known = (*names, REGISTER)
            near = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise self.error(f"unknown parameter {unknown[0]!r}; known: {', '.join(known)}{hint}")

    def error(self, reason: str) -> RegistryUrlError:
        """Return an error that names this URL, to be raised."""
        return RegistryUrlError(f"malformed registry URL {self.text!r}: {reason}")


Opener = Callable[[RegistryUrl], Registry]


def mask(url: str) -> str:
    """Return the URL with its password and secret parameters replaced by ``***``."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    cut = CUT_PASSWORD.match(rest)
    start = cut.end() if cut else 0
    place, question, query = rest[start:].partition("?")
    credentials, at, host = f"{rest[:start]}{place}".rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        place = f"{user}:***@{host}" if colon else f"***@{host}"
    pairs = [
        f"{name}=***" if SECRET.search(unquote(name)) else pair
        for pair in query.split("&")
        for name in (pair.partition("=")[0],)
    ]
    return f"{scheme}{separator}{place}{question}{'&'.join(pairs)}"


def known_schemes() -> str:
    """List the schemes for a message: the built-in ones and those of installed engines."""
    names = {*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINTS))}
    return ", ".join(f"{name}://" for name in sorted(names))


def open_registry(url: str) -> Registry:
    """Open the registry that ``url`` names, or all of several. Connects to nothing yet.

    Args:
        url: one URL; or several, separated by white space, see :mod:`meshkit.registry.several`.

    Raises:
        RegistryUrlError: malformed URL or unknown scheme.
        MissingExtraError: the engine needs an optional dependency that is not installed.
        ConfigError: a third party's engine can't be imported, fails, or is no registry.
    """
    texts = url.split()
    for number, text in enumerate(texts[1:], start=2):
        if "://" not in text:  # it may be a piece of a secret: not shown
            raise RegistryUrlError(
                f"malformed registry URL: white space separates several, and number {number} of "
                "them has no scheme; write a space within a URL as %20"
            )
    parsed = [RegistryUrl.parse(text) for text in texts or [url]]
    if len(parsed) == 1 and REGISTER not in parsed[0].params:
        return find_engine(parsed[0])(parsed[0])
    several: Callable[[list[RegistryUrl]], Registry] = _imported(SEVERAL)
    return several(parsed)


def find_engine(url: RegistryUrl) -> Opener:
    """Return the function that opens this scheme, our own or a third party's."""
    if target := BUILT_IN.get(url.scheme):
        engine: Opener = _imported(target)
        return engine
    found = entry_points(group=ENTRY_POINTS, name=url.scheme)
    values = sorted({entry.value for entry in found})
    if not values:
        raise RegistryUrlError(
            f"unknown registry scheme {url.scheme + '://'!r} in {url.text!r}; "
            f"known: {known_schemes()}"
        )
    if len(values) > 1:
        raise ConfigError(
            f"{url.scheme}:// is the scheme of several installed engines: {', '.join(values)}; "
            "uninstall all but one"
        )
    return functools.partial(_open_foreign, next(iter(found)))


def _open_foreign(entry: EntryPoint, url: RegistryUrl) -> Registry:
    """Open a third party's engine; what is wrong with it becomes one line that names it."""
    who = f"registry engine {url.scheme}:// ({entry.value})"
    try:
        engine = entry.load()
    except Exception as error:
        raise ConfigError(f"{who} can't be imported: {_said(error, url)}") from error
    try:
        registry = engine(url)
    except MeshError:
        raise
    except Exception as error:
        raise ConfigError(f"{who} can't open {url.text!r}: {_said(error, url)}") from error
    if not isinstance(registry, Registry):
        raise ConfigError(
            f"{who} opened a {type(registry).__name__}, which is no meshkit.registry.Registry"
        )
    return registry


def _said(error: Exception, url: RegistryUrl) -> str:
    """Return a stranger's error in one line, without this URL's secrets."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    values = [value for name, value in url.params.items() if SECRET.search(name)]
    for secret in (url.password, *values):
        text = text.replace(secret, "***") if secret else text
    return text


def _imported(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
