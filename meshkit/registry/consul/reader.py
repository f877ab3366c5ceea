"""What is read of one datacenter: its instances, services, and keys."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry.base import SERVICES_POLL, Registry
from meshkit.registry.consul import codec, failures
from meshkit.registry.consul.hidden import Hidden
from meshkit.registry.consul.keyvalue import ConsulKeyValue
from meshkit.registry.consul.polling import follow
from meshkit.registry.consul.transport import Transport
from meshkit.registry.consul.watches import Watches
from meshkit.registry.kv import KeyValue

if TYPE_CHECKING:
    from meshkit.registry.consul.builders import Builders

CONSUL_ITSELF = "consul"
COUNTS_AT_ONCE = 8

log = logging.getLogger("meshkit.consul")


class ConsulReader(Registry):
    """One datacenter, read through the transport's agent.

    Args:
        url: as it is shown.
        transport: closed by whoever made it.
        dc: the datacenter's name; empty for the agent's own.
    """

    propagation = 0.5
    # An emptied Consul has its instances back within one heartbeat. A client agent that is
    # restarted leaves with all of its own: it says so for up to 4 s before it ends, and syncs up
    # to 3 s after it has joined again.
    settle = 10.0
    read_only = True

    def __init__(self, url: str, transport: Transport, *, dc: str) -> None:
        super().__init__(url)
        self._transport = transport
        self._address = transport.address
        self._dc = dc
        self._hidden = Hidden(transport)
        self._reported: set[str] = set()
        self._watches = Watches(transport, self._read_health, dc=dc)
        self._kv = ConsulKeyValue(transport, self._hidden, dc=dc)

    @property
    def peer(self) -> Endpoint | None:
        # Behind a Unix socket is an agent of this machine.
        return self._transport.options.endpoint

    @property
    def kv(self) -> KeyValue:
        return self._kv

    @functools.cached_property
    def _api(self) -> Builders:
        from meshkit.registry.consul.builders import Builders  # noqa: PLC0415 - takes over 0.1 s

        return Builders(self._transport, dc=self._dc)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        seen: tuple[Instance, ...] | None = None
        revision = 0
        async with contextlib.aclosing(self._watches.follow(service)) as lists:
            async for found in lists:
                if found != seen:
                    await self._hint_at_permission(service, found)
                    seen, revision = found, revision + 1
                    yield Snapshot(service=service, instances=found, revision=revision)

    async def instances(self, service: str) -> Snapshot:
        _, found = await self._read_health(service, None, "")
        await self._hint_at_permission(service, found)
        return Snapshot(service=service, instances=found)

    async def services(self) -> tuple[ServiceInfo, ...]:
        _, found = await self._read_catalog(None, "")
        if not found:
            await self._hidden.hint("service", permission="service:read and node:read")
        return found

    async def watch_services(self) -> AsyncGenerator[tuple[ServiceInfo, ...], None]:
        seen: tuple[ServiceInfo, ...] | None = None
        # Each look costs a request for each service.
        async with contextlib.aclosing(follow(self._read_catalog, rate=1 / SERVICES_POLL)) as lists:
            async for found in lists:
                if found != seen:
                    yield (seen := found)

    async def _read_health(
        self, service: str, index: int | None, wait: str
    ) -> tuple[str, tuple[Instance, ...]]:
        answered, entries = await self._api.health.service(service, index=index, wait=wait)
        try:
            found, corrupt = codec.decode(entries)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise failures.not_consul(self._address, request=f"health of {service}") from None
        for service_id, reason in corrupt.items():
            self._report(service, service_id, reason)
        return answered, found

    def _report(self, service: str, service_id: str, reason: str) -> None:
        """Warn once of an entry that can't be used; it is left out."""
        if service_id not in self._reported:
            self._reported.add(service_id)
            log.warning(
                "Consul at %s lists %r of %s, which can't be used: %s; the others are",
                self._address,
                service_id,
                service,
                reason,
            )

    async def _read_catalog(
        self, index: int | None, wait: str
    ) -> tuple[str, tuple[ServiceInfo, ...]]:
        answered, tags = await self._api.catalog.services(index=index, wait=wait)
        if not isinstance(tags, Mapping):
            raise failures.not_consul(self._address, request="the list of services")
        names = sorted(name for name in tags if name != CONSUL_ITSELF)
        counts = await self._count(names)
        return answered, tuple(
            ServiceInfo(name=name, tags=tuple(sorted(tags[name] or ())), instances=counts[name])
            for name in names
            if counts[name]  # else the last one has gone between the two reads
        )

    async def _count(self, names: Sequence[str]) -> dict[str, int]:
        """Count instances with and without checks; only the catalog of each service has both."""
        turns = asyncio.Semaphore(COUNTS_AT_ONCE)

        async def count(name: str) -> int:
            async with turns:
                _, entries = await self._api.catalog.service(name)
                return len(entries or ())

        tasks = [asyncio.create_task(count(name)) for name in names]
        try:
            return dict(zip(names, await asyncio.gather(*tasks), strict=True))
        finally:
            for task in tasks:
                task.cancel()

    async def _hint_at_permission(self, service: str, found: Sequence[Any]) -> None:
        if not found:
            await self._hidden.hint(
                f"instance of {service}", permission="service:read and node:read"
            )
