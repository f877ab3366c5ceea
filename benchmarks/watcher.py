"""Seeing instances appear in a registry, with the moment at which each was seen."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from types import TracebackType
from typing import Self

from measure import BenchmarkError, now
from processes import Process
from wire import LIMIT

from meshkit import Instance
from meshkit.registry import open_registry


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """An instance that may be called, and when the watcher knew (see ``measure.now``)."""

    instance: Instance
    at: float


class Watcher:
    """Watches one service from entering on; ``seen`` holds what has come up, in order."""

    def __init__(self, service: str, registry: str = "local://") -> None:
        self.seen: dict[str, Seen] = {}
        self._service = service
        self._registry = open_registry(registry)
        self._listening = asyncio.Event()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        await self._listening.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._registry.aclose()

    async def wait_for(self, count: int, process: Process) -> list[Seen]:
        """Return the first ``count`` instances, once they are there."""
        deadline = now() + LIMIT
        while len(self.seen) < count:
            process.check()
            if now() > deadline:
                raise BenchmarkError(
                    f"{len(self.seen)} of {count} instances of {self._service} registered "
                    f"within {LIMIT:.0f} s"
                )
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.5)
        return list(self.seen.values())[:count]

    async def _watch(self) -> None:
        async for snapshot in self._registry.watch(self._service):
            at = now()
            for instance in snapshot.up:
                self.seen.setdefault(instance.id, Seen(instance, at))
            self._listening.set()
            self._changed.set()
