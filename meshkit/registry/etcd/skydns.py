"""``skydns+etcd://HOST/DOMAIN``: the registry on etcd, and its instances as SkyDNS 2 records.

CoreDNS's etcd plugin answers DNS queries from them (https://coredns.io/plugins/etcd/). A record
stands for one transport of one instance that is up:

    /skydns/local/mesh/<service>/<transport>/<id> = {"host": "10.1.2.3", "port": 8000, ...}

Its name is the key backwards. A query for ``users.mesh.local`` finds all below, one for
``http.users.mesh.local`` the HTTP endpoints, and one for ``<id>.http.users.mesh.local``, which is
how SRV answers name an address, the one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from meshkit.errors import RegistryError
from meshkit.model import Endpoint, Instance
from meshkit.registry.etcd.engine import EtcdRegistry
from meshkit.registry.etcd.options import PARAMETERS, PREFIX, EtcdOptions, read_options, read_prefix
from meshkit.registry.url import RegistryUrl

DNS_PREFIX = "/skydns"
TRANSPORTS = ("http", "grpc")
PRIORITY = 10  # CoreDNS's and SkyDNS's own default
# How long a resolver may keep an answer. CoreDNS takes 300 s where a record does not say, and no
# less than 30 s from a lease.
RECORD_TTL = 5
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class SkyDnsRegistry(EtcdRegistry):
    """What ``etcd://`` is, under the same keys, and in addition the records.

    Both are written in one transaction and bound to one lease, so that they go together.
    """

    def __init__(self, url: str, options: EtcdOptions, *, domain: str, dns_prefix: str) -> None:
        super().__init__(url, options)
        labels = reversed(domain.split("."))
        self._zone = f"{dns_prefix}/{'/'.join(labels)}"

    def entries(self, instance: Instance) -> Mapping[bytes, bytes]:
        records = {
            self._record_key(instance.service, transport, instance.id): record(instance, endpoint)
            for transport, endpoint in instance.endpoints.items()
            if instance.up
        }
        return {**super().entries(instance), **records}

    def keys(self, service: str, instance_id: str) -> tuple[bytes, ...]:
        records = (self._record_key(service, transport, instance_id) for transport in TRANSPORTS)
        return (*super().keys(service, instance_id), *records)

    def _record_key(self, service: str, transport: str, instance_id: str) -> bytes:
        # One bad record would make CoreDNS fail for all names above it.
        for label in (service, transport, instance_id):
            if not LABEL.fullmatch(label):
                raise RegistryError(
                    f"{label!r} can't be part of a DNS name, as {self.url} needs it"
                )
        return f"{self._zone}/{service}/{transport}/{instance_id}".encode()


def record(instance: Instance, endpoint: Endpoint) -> bytes:
    """Return a SkyDNS record.

    https://github.com/skynetservices/skydns#service-announcements
    """
    return json.dumps(
        {
            "host": endpoint.host,
            "port": endpoint.port,
            "priority": PRIORITY,
            "weight": instance.weight,
            "ttl": RECORD_TTL,
        }
    ).encode()


def open_skydns(url: RegistryUrl) -> SkyDnsRegistry:
    """Open ``skydns+etcd://[USER:PASSWORD@]HOST[:PORT][,HOST...]/DOMAIN``, or ``...+tls://``.

    ``prefix=`` is CoreDNS's ``path``; ``registry=`` is the path of an ``etcd://`` URL.

    Raises:
        RegistryUrlError: the URL, or a file that it names, is not usable.
    """
    url.only("prefix", "registry", *PARAMETERS)
    domain = url.path.strip("/").lower().removesuffix(".")
    if not domain:
        raise url.error(f"name the domain, as in {url.scheme}://HOST/mesh.local")
    if not all(LABEL.fullmatch(label) for label in domain.split(".")):
        raise url.error(f"{domain!r} is no domain name")
    dns_prefix = read_prefix(url, url.params.get("prefix") or DNS_PREFIX)
    options = read_options(url, prefix=url.params.get("registry") or PREFIX)
    if f"{options.prefix}/".startswith(f"{dns_prefix}/"):
        raise url.error(f"{options.prefix} is within {dns_prefix}, where only DNS records may be")
    return SkyDnsRegistry(url.text, options, domain=domain, dns_prefix=dns_prefix)
