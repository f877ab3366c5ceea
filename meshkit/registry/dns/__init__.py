"""``dns://SERVER/DOMAIN``: services found by their SRV records; read-only.

Made for Consul's DNS, CoreDNS (SkyDNS records and Kubernetes' headless services), and any zone
that somebody keeps. Parts, from the wire up: ``exchange`` (one question to one server), ``records``
(SRV records with their addresses), ``instances`` (what they mean to us), ``options`` (the URL) and
``engine`` (the registry). Messages are dnspython's; the sockets are asyncio's, because its own
backend connects to no host name and hears of no refused datagram.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from meshkit.errors import MissingExtraError
from meshkit.registry.url import RegistryUrl

if TYPE_CHECKING:
    from meshkit.registry.dns.engine import DnsRegistry


def open_dns(url: RegistryUrl) -> DnsRegistry:
    """Open ``dns://[SERVER[,SERVER...]]/DOMAIN``; see ``read_options``.

    Raises:
        RegistryUrlError: the URL is not usable; the message says why.
        MissingExtraError: dnspython is not installed.
    """
    if importlib.util.find_spec("dns") is None:
        raise MissingExtraError("a dns:// registry", "dns")
    from meshkit.registry.dns.engine import DnsRegistry  # noqa: PLC0415 - an optional dependency
    from meshkit.registry.dns.options import read_options  # noqa: PLC0415

    return DnsRegistry(url.text, read_options(url))
