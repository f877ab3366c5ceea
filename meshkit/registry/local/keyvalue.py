"""The key-value store of ``local://``: the folder of values, its lock and its watches."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractContextManager

from meshkit.errors import RegistryUnavailable
from meshkit.registry.kv import Entry, KeyValue, check_key, check_value
from meshkit.registry.local.notifier import POLL_ALONE, Notifier
from meshkit.registry.local.values import ValueFolder

# The lock is held for a file or two. Only a process that was stopped meanwhile keeps it longer.
LOCK_LIMIT, LOCK_PAUSE = 10.0, 0.002

log = logging.getLogger("meshkit.local")


class LocalKeyValue(KeyValue):
    """See the module.

    Args:
        url: for messages.
        open_folder: returns the folder of values, made if needed.
        notifier: the registry's.
        errors: turns an OSError of what is done into a RegistryError that says so.
    """

    propagation = 0.2 if sys.platform == "linux" else POLL_ALONE + 0.2

    def __init__(
        self,
        url: str,
        open_folder: Callable[[], ValueFolder],
        notifier: Notifier,
        errors: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._url = url
        self._open_folder = open_folder
        self._notifier = notifier
        self._errors = errors
        self._strangers: set[str] = set()  # that were warned of

    async def get(self, key: str) -> Entry | None:
        with self._errors(f"read {check_key(key)}"):
            return self._open_folder().get(key)

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        with self._errors(f"list {prefix!r}"):
            return await self._list(self._open_folder(), prefix)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> Entry | None:
        check_value(check_key(key), value)
        with self._errors(f"write {key}"):
            async with self._locked(self._open_folder()) as folder:
                return folder.put(key, value, expect)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        with self._errors(f"remove {check_key(key)}"):
            async with self._locked(self._open_folder()) as folder:
                return folder.delete(key, expect)

    async def watch(self, prefix: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
        seen: tuple[Entry, ...] | None = None
        with self._notifier.changes() as changes:
            while changes.open:
                with self._errors(f"list {prefix!r}"):
                    folder = self._open_folder()
                    changes.follow(folder.path)
                    now = await self._list(folder, prefix)
                if now != seen:
                    yield (seen := now)
                await changes.wait()

    async def _list(self, folder: ValueFolder, prefix: str) -> tuple[Entry, ...]:
        async with self._locked(folder, shared=True):
            entries, strangers = folder.list(prefix)
        if new := strangers - self._strangers:
            self._strangers |= new
            names = ", ".join(sorted(new))
            log.warning("%s: %s holds what is no value, skipped: %s", self._url, folder.path, names)
        return entries

    @contextlib.asynccontextmanager
    async def _locked(
        self, folder: ValueFolder, *, shared: bool = False
    ) -> AsyncIterator[ValueFolder]:
        """Hold the folder's lock; nothing may be awaited within, or others would wait too."""
        deadline = time.monotonic() + LOCK_LIMIT
        while (lock := folder.lock(shared=shared)) is None:
            if time.monotonic() > deadline:
                raise RegistryUnavailable(
                    f"{self._url}: {folder.path} has been locked for {LOCK_LIMIT:.0f} s: "
                    "a process that uses it was stopped while writing; end it"
                )
            await asyncio.sleep(LOCK_PAUSE)
        try:
            yield folder
        finally:
            lock.release()
