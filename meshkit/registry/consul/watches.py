"""Watches of many services over few connections.

A watch is a query that Consul holds back, so it takes a connection; and Consul lets a client
address have 200 of them (``limits.http_max_conns_per_client``), for all processes together. So only
the first few services have one each. The others share a :class:`Sweep`, as do all of them once
connections are refused.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable

from meshkit.model import Instance
from meshkit.registry.consul.indexes import Indexes
from meshkit.registry.consul.polling import follow
from meshkit.registry.consul.sweep import Sweep
from meshkit.registry.consul.transport import Transport

Instances = tuple[Instance, ...]
#: takes a service, an index and a wait
Read = Callable[[str, int | None, str], Awaitable[tuple[str, Instances]]]

log = logging.getLogger("meshkit.consul")


class Watches:
    """The watches of one registry.

    Args:
        transport: knows whether connections are refused, and how many we may have.
        read: asks for a service's instances.
        dc: the datacenter's name; empty for the agent's own.
    """

    def __init__(self, transport: Transport, read: Read, *, dc: str) -> None:
        self._transport = transport
        self._read = read
        self._limit = transport.options.watch_connections
        self._own = 0
        self._told = False
        indexes = Indexes(transport, dc=dc)
        self._sweep = Sweep(
            read=lambda service: read(service, None, ""),
            index_of=indexes.of_service,
            tables=(indexes.of_services, indexes.of_checks),
        )

    async def follow(self, service: str) -> AsyncGenerator[Instances, None]:
        """Yield the service's instances at once, and then each time they may have changed."""
        if self._own < self._limit and not self._transport.crowded:
            async with contextlib.aclosing(self._alone(service)) as lists:
                async for found in lists:
                    yield found
        self._tell()
        async with contextlib.aclosing(self._sweep.follow(service)) as lists:
            async for found in lists:
                yield found

    async def _alone(self, service: str) -> AsyncGenerator[Instances, None]:
        """Follow on a connection of its own, until there are too few of them."""
        self._own += 1
        try:
            query = functools.partial(self._read, service)
            async with contextlib.aclosing(follow(query)) as lists:
                async for found in lists:
                    yield found
                    if self._transport.crowded:
                        return
        finally:
            self._own -= 1

    def _tell(self) -> None:
        if self._transport.crowded and not self._told:
            self._told = True
            log.warning(
                "Consul at %s refuses connections, probably because this host has too many: "
                "all watches of this process share two of them from now on, and see changes a "
                "little later; raise limits.http_max_conns_per_client in the agent's configuration",
                self._transport.address,
            )
