"""``sqlite:///FILE``: a registry in one file, for the services of one host."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from meshkit.errors import LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import Instance, ServiceInfo, Snapshot
from meshkit.registry import Lease, Registry, RegistryUrl, summarize

from meshkit_sqlite.store import Store, Version

TTL = 10.0
POLL = 0.1
LIMIT = 5.0

T = TypeVar("T")


class SqliteRegistry(Registry):
    """See the module. A crashed instance is gone after the TTL of 10 s."""

    propagation = 0.5  # a poll, and time to read on a busy machine
    settle = 5.0  # a file that was lost is filled again within a heartbeat, a third of the TTL

    def __init__(self, url: str, file: Path) -> None:
        super().__init__(url)
        # Nothing is opened here: the service may still fork.
        self._store = Store(file)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meshkit-sqlite")
        self._closed = False

    async def register(self, instance: Instance) -> Lease:
        await self._run(self._store.put, instance, TTL)
        return Lease(instance_id=instance.id, ttl=TTL)

    async def renew(self, lease: Lease) -> None:
        if not await self._run(self._store.extend, lease.instance_id, TTL):
            raise LeaseLost(f"{self.url} no longer knows {lease.instance_id}")

    async def deregister(self, instance_id: str) -> None:
        await self._run(self._store.remove, instance_id)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        seen: tuple[Instance, ...] | None = None
        read: Version | None = None
        until, revision = 0.0, 0
        while True:
            # The version first: what changes after it is seen at the next turn.
            version = await self._run(self._store.version)
            if version != read or time.time() >= until:  # an expired lease changes no file
                found, until = await self._run(self._store.read, service)
                read = version
                if found != seen:
                    seen, revision = found, revision + 1
                    yield Snapshot(service=service, instances=found, revision=revision)
            await asyncio.sleep(POLL)

    async def services(self) -> tuple[ServiceInfo, ...]:
        return summarize(await self._run(self._store.read_all))

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True  # nothing new is begun, and closing comes after what is under way
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        finally:
            self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run blocking work on the thread; its errors become ours, each one clear line."""
        if self._closed:
            raise RegistryError(f"{self.url} is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LIMIT):
                return await loop.run_in_executor(self._thread, work, *arguments)
        except TimeoutError:
            raise RegistryUnavailable(f"{self.url} did not answer within {LIMIT:.0f} s") from None
        except (sqlite3.Error, OSError) as error:
            raise RegistryUnavailable(f"{self.url} can't be used: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise RegistryError(f"{self.url} holds a row that is no instance: {error!r}") from None


def open_sqlite(url: RegistryUrl) -> SqliteRegistry:
    """Open ``sqlite:///FILE``. Raises RegistryUrlError when the URL says anything else."""
    url.only()
    if url.host or url.username or not url.path.strip("/"):
        raise url.error("it needs an absolute path, as in sqlite:///var/lib/mesh/registry.db")
    return SqliteRegistry(url.text, Path(url.path))
