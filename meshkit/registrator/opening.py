"""From a registry's URL to the backend that keeps records there."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registrator.backends.base import Opener
from meshkit.registrator.options import Options
from meshkit.registry.url import RegistryUrl

# Which module opens which schemes; imported on use.
BACKENDS = {
    "consul": "consul_opening:open_services",
    "consul+tls": "consul_opening:open_services",
    "consul+unix": "consul_opening:open_services",
}
# As Registrator calls them.
OLD_NAMES = {
    "consul-tls": "consul+tls",
    "consul-unix": "consul+unix",
    "consulkv-unix": "consulkv+unix",
    "consulkv-tls": "consulkv+tls",
}
PACKAGE = "meshkit.registrator.backends"


def find_backend(url: RegistryUrl, options: Options) -> Opener:
    """Return what opens the backend of a URL from :func:`parse`. Nothing is connected to yet.

    Raises:
        RegistryUrlError: a part of the URL is not usable.
        MissingExtraError: the engine needs an optional dependency that is not installed.
        ConfigError: the options can't be had there.
    """
    module, _, name = BACKENDS[url.scheme].partition(":")
    find: Any = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    opener: Opener = find(url, options)
    return opener


def parse(text: str) -> RegistryUrl:
    """Read the URL; Registrator's schemes become ours. Raises RegistryUrlError."""
    scheme, separator, rest = text.partition("://")
    known = OLD_NAMES.get(scheme.lower(), scheme)
    url = RegistryUrl.parse(f"{known}{separator}{rest}")
    if url.scheme not in BACKENDS:
        near = difflib.get_close_matches(url.scheme, [*BACKENDS, *OLD_NAMES], n=1)
        hint = f"; did you mean {near[0]}://?" if near else ""
        raise RegistryUrlError(
            f"unknown registry scheme '{url.scheme}://' in {url.text!r}; the registrator knows "
            f"{', '.join(f'{each}://' for each in sorted(BACKENDS))}{hint}"
        )
    return url


def peer_of(url: RegistryUrl) -> Endpoint | None:
    """Return the registry's first server, as far as the URL names one."""
    text = url.host.partition(",")[0]
    bare = ":" not in text or text.endswith("]")
    try:
        return Endpoint.parse(f"{text}:1" if bare else text)
    except ValueError:
        return None
