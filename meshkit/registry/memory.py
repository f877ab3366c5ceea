"""``memory://NAME``: a registry inside this process, for tests and notebooks.

All registries opened with one name share their content, across threads and event loops.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable

from meshkit.errors import LeaseLost
from meshkit.model import Instance, ServiceInfo, Snapshot
from meshkit.registry.base import Lease, Registry, summarize
from meshkit.registry.url import RegistryUrl

TTL = 30.0


class Store:
    """What the registries of one name share. Safe to use from any thread."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.revision = 0
        self.lock = threading.Lock()
        self.listeners: set[Callable[[], None]] = set()

    def put(self, instance: Instance) -> None:
        with self.lock:
            self.instances[instance.id] = instance
            self._changed()

    def remove(self, instance_id: str) -> None:
        with self.lock:
            if self.instances.pop(instance_id, None):
                self._changed()

    def clear(self) -> None:
        """Forget everything, as a registry that was restarted empty."""
        with self.lock:
            self.instances.clear()
            self._changed()

    def snapshot(self, service: str) -> Snapshot:
        with self.lock:
            found = sorted(
                (each for each in self.instances.values() if each.service == service),
                key=lambda each: each.id,
            )
            return Snapshot(service=service, instances=tuple(found), revision=self.revision)

    def services(self) -> tuple[ServiceInfo, ...]:
        with self.lock:
            return summarize(self.instances.values())

    def listen(self, listener: Callable[[], None]) -> None:
        with self.lock:
            self.listeners.add(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        with self.lock:
            self.listeners.discard(listener)

    def _changed(self) -> None:
        self.revision += 1
        for listener in self.listeners:
            listener()


_stores: dict[str, Store] = {}


def store(name: str) -> Store:
    """Return the store of this name, made on first use."""
    return _stores.setdefault(name, Store())


class MemoryRegistry(Registry):
    """See the module."""

    propagation = 0.05
    settle = 0.0

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url)
        self._store = store(name)

    async def register(self, instance: Instance) -> Lease:
        self._store.put(instance)
        return Lease(instance_id=instance.id, ttl=TTL)

    async def renew(self, lease: Lease) -> None:
        if lease.instance_id not in self._store.instances:
            raise LeaseLost(f"{self.url} no longer knows {lease.instance_id}")

    async def deregister(self, instance_id: str) -> None:
        self._store.remove(instance_id)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        self._store.listen(notify)
        try:
            seen: tuple[Instance, ...] | None = None
            while True:
                changed.clear()
                snapshot = self._store.snapshot(service)
                if snapshot.instances != seen:
                    seen = snapshot.instances
                    yield snapshot
                await changed.wait()
        finally:
            self._store.unlisten(notify)

    async def services(self) -> tuple[ServiceInfo, ...]:
        return self._store.services()


def open_memory(url: RegistryUrl) -> MemoryRegistry:
    """Open ``memory://NAME``; the name may be empty."""
    url.only()
    return MemoryRegistry(url.text, url.host)
