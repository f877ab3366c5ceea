"""``memory://NAME``: a registry inside this process, for tests and notebooks.

All registries opened with one name share their content, across threads and event loops.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from meshkit.errors import LeaseLost
from meshkit.model import Instance, ServiceInfo, Snapshot
from meshkit.registry.base import Lease, Registry, summarize
from meshkit.registry.kv import ABSENT, Entry, KeyValue, check_key, check_value
from meshkit.registry.url import RegistryUrl

TTL = 30.0

Value = TypeVar("Value")


class Store:
    """What the registries of one name share. Safe to use from any thread."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.entries: dict[str, Entry] = {}
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
            self.entries.clear()
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

    def write(self, key: str, value: bytes, expect: int | None) -> Entry | None:
        """Write an entry; None when ``expect`` is not its revision."""
        with self.lock:
            if expect not in (None, self._revision_of(key)):
                return None
            # The store's own count, which goes on when a key is removed: it never repeats.
            entry = Entry(key=key, value=value, revision=self.revision + 1)
            self.entries[key] = entry
            self._changed()
            return entry

    def erase(self, key: str, expect: int | None) -> bool:
        """Remove an entry; False when there is none, or another than expected."""
        with self.lock:
            if key not in self.entries or expect not in (None, self._revision_of(key)):
                return False
            del self.entries[key]
            self._changed()
            return True

    def list(self, prefix: str) -> tuple[Entry, ...]:
        with self.lock:
            keys = sorted(key for key in self.entries if key.startswith(prefix))
            return tuple(self.entries[key] for key in keys)

    async def follow(
        self, read: Callable[[], Value], same: Callable[[Value, Value], bool]
    ) -> AsyncGenerator[Value, None]:
        """Yield what is read, at once and whenever it is another than before."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        self.listen(notify)
        try:
            seen: Value | None = None
            while True:
                changed.clear()
                now = read()
                if seen is None or not same(now, seen):
                    yield (seen := now)
                await changed.wait()
        finally:
            self.unlisten(notify)

    def listen(self, listener: Callable[[], None]) -> None:
        with self.lock:
            self.listeners.add(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        with self.lock:
            self.listeners.discard(listener)

    def _revision_of(self, key: str) -> int:
        entry = self.entries.get(key)
        return entry.revision if entry else ABSENT

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

    @property
    def kv(self) -> MemoryKeyValue:
        return MemoryKeyValue(self._store)

    async def register(self, instance: Instance) -> Lease:
        self._store.put(instance)
        return Lease(instance_id=instance.id, ttl=TTL)

    async def renew(self, lease: Lease) -> None:
        if lease.instance_id not in self._store.instances:
            raise LeaseLost(f"{self.url} no longer knows {lease.instance_id}")

    async def deregister(self, instance_id: str) -> None:
        self._store.remove(instance_id)

    def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        return self._store.follow(
            lambda: self._store.snapshot(service),
            lambda one, other: one.instances == other.instances,
        )

    async def services(self) -> tuple[ServiceInfo, ...]:
        return self._store.services()


class MemoryKeyValue(KeyValue):
    """The key-value store of one name."""

    propagation = 0.05

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: str) -> Entry | None:
        return self._store.entries.get(check_key(key))

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        return self._store.list(prefix)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> Entry | None:
        return self._store.write(check_key(key), check_value(key, value), expect)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        return self._store.erase(check_key(key), expect)

    def watch(self, prefix: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
        return self._store.follow(lambda: self._store.list(prefix), operator.eq)


def open_memory(url: RegistryUrl) -> MemoryRegistry:
    """Open ``memory://NAME``; the name may be empty."""
    url.only()
    return MemoryRegistry(url.text, url.host)
