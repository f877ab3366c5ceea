"""Opens what is kept in Consul: services of its agent, or keys of its store."""

from __future__ import annotations

import os

from meshkit.registrator.backends.base import Opener
from meshkit.registrator.backends.consul import ConsulServices
from meshkit.registrator.options import Options
from meshkit.registry.consul.settings import read_options
from meshkit.registry.consul.transport import Transport
from meshkit.registry.url import RegistryUrl


def open_services(url: RegistryUrl, options: Options) -> Opener:
    """Open ``consul://[HOST[:PORT]]``, ``consul+tls://`` or ``consul+unix:///SOCKET``."""
    consul = read_options(url, os.environ)
    shown = url.text if url.host else consul.url
    return lambda owner: ConsulServices(shown, owner, Transport(consul), adopt=options.cleanup)
