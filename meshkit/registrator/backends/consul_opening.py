"""Opens what is kept in Consul: services of its agent, or keys of its store."""

from __future__ import annotations

import dataclasses
import os

from meshkit.registrator.backends.base import Opener
from meshkit.registrator.backends.consul import ConsulServices
from meshkit.registrator.backends.consul_keys import ConsulKeys
from meshkit.registrator.backends.layouts import Addresses
from meshkit.registrator.options import Options
from meshkit.registry.consul.settings import read_options
from meshkit.registry.consul.transport import Transport
from meshkit.registry.url import RegistryUrl


def open_services(url: RegistryUrl, options: Options) -> Opener:
    """Open ``consul://[HOST[:PORT]]``, ``consul+tls://`` or ``consul+unix:///SOCKET``."""
    consul = read_options(url, os.environ)
    shown = url.text if url.host else consul.url
    return lambda owner: ConsulServices(shown, owner, Transport(consul), adopt=options.cleanup)


def open_keys(url: RegistryUrl, options: Options) -> Opener:
    """Open ``consulkv://[HOST[:PORT]]/PREFIX``, or ``consulkv+unix:///SOCKET:/PREFIX``."""
    path, prefix = "", url.path.strip("/")
    if url.scheme == "consulkv+unix":
        path, colon, prefix = url.path.partition(":")
        if not colon:
            raise url.error(
                f"name the socket and the prefix, as {url.scheme}:///run/x.sock:/prefix"
            )
        prefix = prefix.strip("/")
    scheme = url.scheme.replace("consulkv", "consul")
    consul = read_options(dataclasses.replace(url, scheme=scheme, path=path), os.environ)
    layout = Addresses(prefix)
    return lambda owner: ConsulKeys(
        url.text, owner, Transport(consul), layout, adopt=options.cleanup
    )
