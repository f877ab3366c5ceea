"""The contract that every registry engine fulfils.

Three promises to a watcher: the full list each time, the first one at once, and a fresh one
after every recovery. An engine does not retry or cache: it raises, and whoever watches or
renews decides what to do (:mod:`meshkit.discovery`, :mod:`meshkit.runtime`). So a failed read
can never pass for an empty list, and the policy is written once for all engines.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Iterable
from types import TracebackType
from typing import Self

from meshkit.errors import Unsupported
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry.kv import KeyValue

SERVICES_POLL = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A registration that has to be renewed.

    Attributes:
        instance_id: whose registration it is.
        ttl: seconds without a renewal after which the registry lets the instance go.
    """

    instance_id: str
    ttl: float

    @property
    def interval(self) -> float:
        """Seconds between renewals: a third of the TTL, so that two may be lost."""
        return self.ttl / 3


class Registry(abc.ABC):
    """Where instances are registered and found. One object belongs to one event loop.

    Every coroutine raises :class:`~meshkit.errors.RegistryError` (or a subclass) when the
    registry fails, and nothing of the library underneath.
    """

    #: seconds until the slowest watcher knows of a change: how long a leaving instance must
    #: keep answering
    propagation: float = 1.0
    #: seconds for which a drop of more than half of the list is doubted (see discovery)
    settle: float = 1.0
    #: True when it can only be read; services then run unregistered
    read_only: bool = False
    #: True when somebody else lists our instances in it: who leaves waits for ``propagation``,
    #: though it has registered nothing
    listed_by_others: bool = False

    def __init__(self, url: str) -> None:
        self.url = url  # without secrets: it is logged and shown

    @property
    def peer(self) -> Endpoint | None:
        """The server's address, when it has one; the route towards it tells our own address."""
        return None

    @property
    def kv(self) -> KeyValue:
        """The registry's key-value store. Raises Unsupported when the engine has none."""
        raise Unsupported(f"{self.url} has no key-value store")

    async def register(self, instance: Instance) -> Lease:
        """Add the instance, or replace the one with this id; visible with its status at once."""
        raise Unsupported(f"{self.url} is read-only: {instance.service} can't be registered")

    async def renew(self, lease: Lease) -> None:  # noqa: ARG002
        """Say that the instance lives. Raises LeaseLost when it has to be registered anew."""
        raise Unsupported(f"{self.url} is read-only: nothing can be renewed")

    async def deregister(self, instance_id: str) -> None:  # noqa: B027 - a default
        """Remove the instance. An unknown id, or a second time, is no error."""

    async def why_unlisted(self) -> str:
        """Say what may keep an instance that was accepted out of the list; empty if nobody knows.

        Asked once, some time after the registration. Never raises.
        """
        return ""

    @abc.abstractmethod
    def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        """Yield the service's full list at once, then after each change; raise when it is lost.

        An unknown service yields an empty snapshot. Close the generator to end the watch.
        """

    @abc.abstractmethod
    async def services(self) -> tuple[ServiceInfo, ...]:
        """All services that have instances, sorted by name."""

    async def instances(self, service: str) -> Snapshot:
        """Read the service's full list once."""
        watch = self.watch(service)
        try:
            return await anext(watch)
        finally:
            await watch.aclose()

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        """Yield the list of services at once, then after each change. Polls unless overridden."""
        seen: tuple[ServiceInfo, ...] | None = None
        while True:
            now = await self.services()
            if now != seen:
                yield (seen := now)
            await asyncio.sleep(SERVICES_POLL)

    async def aclose(self) -> None:  # noqa: B027 - a default
        """Let go of connections, files and locks. Closing twice is safe."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Datacenters(abc.ABC):
    """What a registry offers that knows of others like it elsewhere; a second base of its class."""

    @abc.abstractmethod
    async def datacenters(self) -> tuple[str, ...]:
        """Names of all datacenters, this registry's own first, then by distance."""

    @abc.abstractmethod
    def in_datacenter(self, name: str) -> Registry:
        """Return a read-only registry of that datacenter, over this one's connections.

        It ends with this one. A datacenter that can't be reached, or that nobody knows, shows as
        the error of what is read.
        """


def summarize(instances: Iterable[Instance]) -> tuple[ServiceInfo, ...]:
    """Group instances by service: what ``services()`` answers."""
    tags: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for instance in instances:
        tags.setdefault(instance.service, set()).update(instance.tags)
        counts[instance.service] = counts.get(instance.service, 0) + 1
    return tuple(
        ServiceInfo(name=name, tags=tuple(sorted(tags[name])), instances=counts[name])
        for name in sorted(counts)
    )
