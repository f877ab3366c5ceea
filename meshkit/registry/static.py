"""``static://SERVICE=INSTANCE,INSTANCE;SERVICE=INSTANCE``: a fixed list, for tests and gateways.

An instance is ``host:HTTP``, ``host:HTTP/GRPC`` or, for gRPC alone, ``host:/GRPC``; an IPv6
address stands in brackets: ``static://users=10.0.0.1:8000,10.0.0.2:8000;ledger=[::1]:/9000``.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import re
from collections.abc import AsyncGenerator, Mapping

from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, check_service_name
from meshkit.registry.base import Registry, summarize
from meshkit.registry.url import RegistryUrl

HOST = re.compile(r"[A-Za-z0-9._:%-]+")  # a name, an IPv4 or an IPv6 address with its scope
ID_LENGTH = 63
DIGEST_LENGTH = 8


class StaticRegistry(Registry):
    """See the module.

    Args:
        url: for messages.
        instances: by service, sorted by id.
    """

    propagation = 0.0  # nothing ever changes
    settle = 0.0
    read_only = True

    def __init__(self, url: str, instances: Mapping[str, tuple[Instance, ...]]) -> None:
        super().__init__(url)
        self._instances = instances
        self._closed = asyncio.Event()

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        yield await self.instances(service)
        await self._closed.wait()

    async def instances(self, service: str) -> Snapshot:
        return Snapshot(service=service, instances=self._instances.get(service, ()), revision=1)

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        yield await self.services()
        await self._closed.wait()

    async def services(self) -> tuple[ServiceInfo, ...]:
        return summarize(each for found in self._instances.values() for each in found)

    async def aclose(self) -> None:
        self._closed.set()


def open_static(url: RegistryUrl) -> StaticRegistry:
    """Open a ``static://`` URL. Raises RegistryUrlError that names the part it can't read."""
    url.only()
    if url.username or url.password:
        raise url.error("nothing here takes a user or a password")
    services: dict[str, tuple[Instance, ...]] = {}
    for part in (url.host + url.path).split(";"):
        service, equals, addresses = part.partition("=")
        try:
            if not equals:
                raise ValueError(f"{part!r} is not SERVICE=HOST:PORT,HOST:PORT")
            if check_service_name(service) in services:
                raise ValueError(f"service {service!r} is listed twice")
            services[service] = _instances(service, addresses.split(","))
        except ValueError as error:
            raise url.error(str(error)) from None
    return StaticRegistry(url.text, services)


def _instances(service: str, addresses: list[str]) -> tuple[Instance, ...]:
    if repeated := [each for each, times in collections.Counter(addresses).items() if times > 1]:
        raise ValueError(f"{repeated[0]!r} is listed twice for service {service!r}")
    endpoints = {address: _endpoints(address) for address in addresses}
    slugs = {
        address: _slug(service, next(iter(endpoints[address].values()))) for address in addresses
    }
    times = collections.Counter(slugs.values())
    found = (
        Instance(
            id=_id(slugs[address], address, plain=times[slugs[address]] == 1),
            service=service,
            endpoints=endpoints[address],
        )
        for address in addresses
    )
    return tuple(sorted(found, key=lambda each: each.id))


def _endpoints(address: str) -> dict[str, Endpoint]:
    http, slash, grpc = address.partition("/")
    host, colon, port = http.rpartition(":")
    if not HOST.fullmatch(host.strip("[]")):
        raise ValueError(f"{address!r} is not HOST:PORT, HOST:PORT/GRPCPORT or HOST:/GRPCPORT")
    endpoints = {}
    if port or not slash:
        endpoints["http"] = Endpoint.parse(http)
    if slash:
        endpoints["grpc"] = Endpoint.parse(f"{host}{colon}{grpc}")
    return endpoints


def _slug(service: str, endpoint: Endpoint) -> str:
    """Say service, host and port as one DNS label, perhaps too long."""
    host = re.sub(r"[^a-z0-9]+", "-", endpoint.host.lower()).strip("-")
    return f"{service}-{host}-{endpoint.port}"


def _id(slug: str, address: str, *, plain: bool) -> str:
    """Return the slug, told apart by a digest when it is too long or not the only one."""
    if plain and len(slug) <= ID_LENGTH:
        return slug
    digest = hashlib.sha256(address.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{slug[: ID_LENGTH - DIGEST_LENGTH - 1].rstrip('-')}-{digest}"
