"""Writes about one instance, one after the other.

An agent takes the requests of two connections in any order. One whose caller has given up may
still be on its way, and would undo what is asked for after it: a service that stops while it is
being registered would be listed as up, and be gone. So a write goes on without its caller, and the
next one waits for its end, for a while.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from meshkit.errors import RegistryError

T = TypeVar("T")
# Of an agent that does not answer the earlier write: what stops has little time, and it will find
# both when it goes on.
PATIENCE = 1.0


class Turns:
    """Lets writes take turns, by the id of their instance.

    Args:
        closed: returns the error for a write that :meth:`aclose` has ended.
    """

    def __init__(self, closed: Callable[[], RegistryError]) -> None:
        self._closed = closed
        self._last: dict[str, asyncio.Task[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def take(self, instance_id: str, write: Callable[[], Awaitable[T]]) -> T:
        """Write when the earlier writes about this instance have ended; return what it returns."""
        task = asyncio.create_task(_after(self._last.get(instance_id), write))
        self._last[instance_id] = task
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._ended, instance_id))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and caller is not None and not caller.cancelling():
                raise self._closed() from None
            raise

    async def aclose(self) -> None:
        """End all writes."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, instance_id: str, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._last.get(instance_id) is task:
            del self._last[instance_id]
        if not task.cancelled():
            task.exception()  # its caller may have gone


async def _after(earlier: asyncio.Task[Any] | None, write: Callable[[], Awaitable[T]]) -> T:
    if earlier is not None:
        await asyncio.wait({earlier}, timeout=PATIENCE)
    return await write()
