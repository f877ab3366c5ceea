"""Many services followed by two blocking queries and a look at each index.

The two queries tell that something has changed anywhere; a pass over the indexes of the services
that are followed here tells what, and only those are read again. A pass costs one small request
for each service, one after another on one connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from meshkit.registry.consul.polling import Pace, Query, follow

READS_AT_ONCE = 2
# In a cluster that changes all the time, so many passes a second are made and no more.
RATE = 2.0
BURST = 4
# The server that answers a pass may be a moment behind the one that woke us: look again.
CONFIRM = 1.0
PERIOD = 30.0
# Consul keeps the connection of a query that was given up until its wait is over. Where connections
# are scarce, those of sweeps that had to begin anew must not use up the rest.
PATIENCE = 5.0

T = TypeVar("T")


class Follower:
    """Somebody who follows a service, and the index of what he has read."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.index: int | None = None
        self.error: Exception | None = None
        self.changed = asyncio.Event()


class Sweep(Generic[T]):
    """Follows any number of services. Runs while there is somebody who follows.

    Args:
        read: returns a service's index and content.
        index_of: returns a service's index alone.
        tables: queries that answer when anything has changed.
    """

    def __init__(
        self,
        *,
        read: Callable[[str], Awaitable[tuple[str, T]]],
        index_of: Callable[[str], Awaitable[int]],
        tables: Sequence[Query[str]],
    ) -> None:
        self._read = read
        self._index_of = index_of
        self._tables = tables
        self._followers: set[Follower] = set()
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def follow(self, service: str) -> AsyncGenerator[T, None]:
        """Yield the service's content at once, and then when its index has moved, for ever.

        An error of the sweep is an error of all who follow; the next one starts it again.
        """
        follower = Follower(service)
        self._followers.add(follower)
        try:
            while True:
                if self._task is None:
                    self._task = asyncio.create_task(self._run(), name="meshkit-consul-sweep")
                async with self._reads:
                    answered, content = await self._read(service)
                follower.index = int(answered)
                yield content
                await follower.changed.wait()
                follower.changed.clear()
                if follower.error is not None:
                    raise follower.error
        finally:
            self._followers.discard(follower)
            if not self._followers:
                await self._stop()

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._listen(table)) for table in self._tables]
        tasks.append(asyncio.create_task(self._pass_for_ever()))
        try:
            await asyncio.gather(*tasks)
        except Exception as error:  # noqa: BLE001 - theirs who follow
            self._task = None
            for follower in self._followers:
                follower.error = _again(error)
                follower.changed.set()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _listen(self, table: Query[str]) -> None:
        seen = ""
        async with contextlib.aclosing(follow(table, patience=PATIENCE)) as indexes:
            async for index in indexes:
                if index != seen:
                    seen = index
                    self._woken.set()

    async def _pass_for_ever(self) -> None:
        pace = Pace(rate=RATE, burst=BURST)
        confirm = False
        while True:
            try:
                async with asyncio.timeout(CONFIRM if confirm else PERIOD):
                    await self._woken.wait()
                confirm = True
            except TimeoutError:
                confirm = False
            self._woken.clear()
            await pace.turn()
            await self._pass()

    async def _pass(self) -> None:
        for service in sorted({follower.service for follower in self._followers}):
            index = await self._index_of(service)
            for follower in self._followers:
                if follower.service == service and follower.index not in (None, index):
                    follower.changed.set()


def _again(error: Exception) -> Exception:
    """Return one like it: each who raises it adds his own traceback."""
    return type(error)(*error.args)
