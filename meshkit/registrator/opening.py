"""From a registry's URL to the backend that keeps records there."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
from importlib.metadata import entry_points
from typing import Any

from meshkit.errors import RegistryUrlError
from meshkit.model import Endpoint
from meshkit.registrator.backends.base import Opener
from meshkit.registrator.options import Options
from meshkit.registry.url import BUILT_IN, ENTRY_POINTS, RegistryUrl

# Which function opens which schemes; imported on use.
BACKENDS = {
    **dict.fromkeys(("consul", "consul+tls", "consul+unix"), "consul_opening:open_services"),
    **dict.fromkeys(("consulkv", "consulkv+tls", "consulkv+unix"), "consul_opening:open_keys"),
    **dict.fromkeys(("etcdkv", "etcdkv+tls"), "etcd:open_keys"),
    **dict.fromkeys(("skydns2", "skydns2+tls"), "etcd:open_skydns"),
    **dict.fromkeys(("zookeeperkv", "zookeeperkv+tls"), "zookeeper_opening:open_nodes"),
}
INSTANCES = "instances:open_instances"
# As Registrator calls them.
OLD_NAMES = {
    "consul-tls": "consul+tls",
    "consul-unix": "consul+unix",
    "consulkv-tls": "consulkv+tls",
    "consulkv-unix": "consulkv+unix",
}
# ``etcd://...?layout=registrator`` is ``etcdkv://...``
LAYOUT = "layout"
LAYOUTS = ("consul", "etcd", "zookeeper")
PACKAGE = "meshkit.registrator.backends"


def find_backend(url: RegistryUrl, options: Options) -> Opener:
    """Return what opens the backend of a URL from :func:`parse`. Nothing is connected to yet.

    Raises:
        RegistryUrlError: a part of the URL is not usable.
        MissingExtraError: the engine needs an optional dependency that is not installed.
        ConfigError: the options can't be had there.
    """
    module, _, name = BACKENDS.get(url.scheme, INSTANCES).partition(":")
    find: Any = getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    opener: Opener = find(url, options)
    return opener


def parse(text: str) -> RegistryUrl:
    """Read the URL; Registrator's schemes become ours. Raises RegistryUrlError."""
    scheme, separator, rest = text.partition("://")
    known = OLD_NAMES.get(scheme.lower(), scheme)
    url = _laid_out(RegistryUrl.parse(f"{known}{separator}{rest}"))
    schemes = {*BACKENDS, *BUILT_IN, *(each.name for each in entry_points(group=ENTRY_POINTS))}
    if url.scheme not in schemes:
        near = difflib.get_close_matches(url.scheme, [*schemes, *OLD_NAMES], n=1)
        hint = f"; did you mean {near[0]}://?" if near else ""
        raise RegistryUrlError(
            f"unknown registry scheme '{url.scheme}://' in {url.text!r}; known: "
            f"{', '.join(f'{each}://' for each in sorted(schemes))}{hint}"
        )
    return url


def _laid_out(url: RegistryUrl) -> RegistryUrl:
    """Return the URL without ``layout=``, which is another scheme. Raises RegistryUrlError."""
    layout = url.params.get(LAYOUT, "meshkit")
    family, plus, rest = url.scheme.partition("+")
    params = {name: value for name, value in url.params.items() if name != LAYOUT}
    if layout == "meshkit":
        return dataclasses.replace(url, params=params)
    if layout != "registrator" or family not in LAYOUTS:
        raise url.error(
            f"layout={layout} is not known there; layout=registrator is, of "
            f"{', '.join(f'{each}://' for each in LAYOUTS)}"
        )
    return dataclasses.replace(url, scheme=f"{family}kv{plus}{rest}", params=params)


def peer_of(url: RegistryUrl) -> Endpoint | None:
    """Return the registry's first server, as far as the URL names one."""
    text = url.host.partition(",")[0]
    bare = ":" not in text or text.endswith("]")
    try:
        return Endpoint.parse(f"{text}:1" if bare else text)
    except ValueError:
        return None
