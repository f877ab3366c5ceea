"""The registry on Kubernetes' API server."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from meshkit.errors import ConfigError
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, check_service_name
from meshkit.registry.base import Registry
from meshkit.registry.kubernetes.api import Api, Slice
from meshkit.registry.kubernetes.following import Following
from meshkit.registry.kubernetes.instances import SERVICE, to_instances, to_services
from meshkit.registry.kubernetes.options import KubernetesOptions, read_options
from meshkit.registry.url import RegistryUrl

T = TypeVar("T")


class KubernetesRegistry(Registry):
    """See the package. Each watch takes one connection to the API server."""

    # The controller that takes a terminating pod out of its slices, and proxies on other nodes,
    # may need longer than a watch.
    propagation = 3.0
    read_only = True

    def __init__(self, url: str, options: KubernetesOptions) -> None:
        super().__init__(url)
        self._api = Api(options)
        self.listed_by_others = options.in_cluster

    @property
    def peer(self) -> Endpoint | None:
        return self._api.server

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        seen: tuple[Instance, ...] | None = None
        revision = 0
        selector = f"{SERVICE}={_checked(service)}"
        async with contextlib.aclosing(Following(self._api, selector).changes()) as changes:
            async for slices in changes:
                found = self._understood(functools.partial(to_instances, service), slices)
                if found != seen:
                    seen, revision = found, revision + 1
                    yield Snapshot(service=service, instances=found, revision=revision)

    async def services(self) -> tuple[ServiceInfo, ...]:
        listing = await self._api.read(SERVICE)
        return self._understood(to_services, listing.slices)

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        seen: tuple[ServiceInfo, ...] | None = None
        async with contextlib.aclosing(Following(self._api, SERVICE).changes()) as changes:
            async for slices in changes:
                found = self._understood(to_services, slices)
                if found != seen:
                    yield (seen := found)

    async def aclose(self) -> None:
        await self._api.aclose()

    def _understood(self, read: Callable[[Sequence[Slice]], T], slices: Sequence[Slice]) -> T:
        try:
            return read(slices)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            raise self._api.unreadable() from None


def _checked(service: str) -> str:
    try:
        return check_service_name(service)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def open_kubernetes(url: RegistryUrl) -> KubernetesRegistry:
    """Open ``kubernetes://[NAMESPACE]`` or ``kubernetes://HOST:PORT/[NAMESPACE]``.

    See ``read_options``.

    Raises:
        RegistryUrlError: not in a cluster, or a part of the URL is not usable.
    """
    options = read_options(url, os.environ)
    _, question, query = url.text.partition("?")
    return KubernetesRegistry(f"{options.url}{question}{query}", options)
