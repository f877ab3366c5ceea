"""What the registry contract's tests stand on: instances, conditions, fixtures."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar

import pytest

from meshkit.errors import RegistryError
from meshkit.model import METADATA_PAIRS, Endpoint, Instance, Snapshot, Status
from meshkit.registry.base import Registry
from meshkit.testing.watched import Watched

#: opens another registry object on the same data; the caller closes it
Opener = Callable[[], Registry]

#: what has to survive the way through the registry, beside id and service
FIELDS: dict[str, dict[str, Any]] = {
    "everything": {
        "version": "1.2.3-rc.1+build",
        "tags": ("zebra", "apple", "mango-2"),
        "metadata": {
            "team": "Zürich 東京 🚀",
            "empty": "",
            "json": '{"a": [1, "b,c"]}',
            "x_Y-9": "=",
        },
        "endpoints": {"http": Endpoint("10.1.2.3", 8000), "grpc": Endpoint("10.1.2.3", 9000)},
        "weight": 65535,
        "zone": "eu-west-1a",
        "started_at": 1763884800.123,
    },
    "IPv6": {"endpoints": {"http": Endpoint("2001:db8::1", 80), "grpc": Endpoint("::1", 65535)}},
    "host name": {"endpoints": {"http": Endpoint("users.example.org", 443)}},
    "different hosts": {"endpoints": {"http": Endpoint("10.0.0.1", 1), "grpc": Endpoint("::1", 2)}},
    "gRPC only": {"endpoints": {"grpc": Endpoint("127.0.0.1", 9000)}},
    "most metadata": {"metadata": {f"key-{n}": "v" * 512 for n in range(METADATA_PAIRS)}},
    **{status.value: {"status": status} for status in Status},
}


def make(service: str, name: str = "a", **fields: Any) -> Instance:
    """Return an instance whose id is unique as long as the service's name is."""
    fields.setdefault("endpoints", {"http": Endpoint("127.0.0.1", 8000)})
    return Instance(id=f"{service}-{name}", service=service, **fields)


def has(*instances: Instance) -> Callable[[Snapshot], bool]:
    """Return a condition: exactly these ids, with these statuses and weights, sorted by id."""
    expected = sorted((each.id, each.status, each.weight) for each in instances)

    def holds(snapshot: Snapshot) -> bool:
        found = [(each.id, each.status, each.weight) for each in snapshot.instances]
        return found == expected

    return holds


def open_files() -> int:
    """Count this process's open files and sockets."""
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - no Path per file


class RegistryFixtures:
    """Where :class:`~meshkit.testing.registry_contract.RegistryContract` is fitted to an engine."""

    #: seconds that the slowest thing may take
    patience: ClassVar[float] = 10.0
    #: seconds for which a watch that must stay silent is listened to
    calm: ClassVar[float] = 0.3

    @pytest.fixture
    def opener(self) -> Opener:
        """Return a function that opens another registry on the same data. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture 'opener'")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        """Make the registry lose the instance, as one that was restarted empty has.

        Override it where that can be done behind the back of ``registrar``.
        """
        await registrar.deregister(instance.id)

    @pytest.fixture
    async def connect(self, opener: Opener) -> AsyncIterator[Opener]:
        """Return the opener's like whose registries are closed after the test."""
        async with contextlib.AsyncExitStack() as stack:

            def connect() -> Registry:
                registry = opener()
                stack.push_async_callback(registry.aclose)
                return registry

            yield connect

    @pytest.fixture
    async def registrar(self, connect: Opener) -> Registry:
        """Return the registry object that registers."""
        return connect()

    @pytest.fixture
    async def reader(self, connect: Opener) -> Registry:
        """Return another one, that reads."""
        return connect()

    @pytest.fixture
    def service(self) -> str:
        """Return a service name that nobody else uses."""
        return f"users-{secrets.token_hex(4)}"

    def watched(self, registry: Registry, service: str) -> Watched[Snapshot]:
        """Watch a service, with this engine's patience."""
        return Watched(registry.watch(service), patience=self.patience)

    async def closing_leaves_nothing(
        self, opener: Opener, watch: Callable[[Registry], AsyncGenerator[Any, None]]
    ) -> None:
        """Close a registry whose watches wait: they end or fail; no file and no task stays."""
        for cycle in range(2):  # what the first one leaves is the library's, once per process
            files, tasks = open_files(), len(asyncio.all_tasks())
            registry = opener()
            watches = [Watched(watch(registry), patience=self.patience) for _ in "ab"]
            for watched in watches:
                await watched.next()
                await watched.nothing(seconds=0.01)
            await registry.aclose()
            for watched in watches:
                with contextlib.suppress(StopAsyncIteration, RegistryError):
                    await watched.nothing(seconds=self.calm)
                await watched.aclose()
            if cycle:
                await self.falls_to(tasks, lambda: len(asyncio.all_tasks()), "tasks")
                await self.falls_to(files, open_files, "open files")

    async def cancelling_leaves_nothing(self, watch: Callable[[], Watched[Any]]) -> None:
        """Begin and cancel watches over and over; an idle connection may be kept for reuse."""

        async def watch_and_cancel(times: int) -> None:
            for _ in range(times):
                async with watch() as watched:
                    await watched.next()
                    await watched.nothing(seconds=0.01)

        await watch_and_cancel(3)
        files, tasks = open_files(), len(asyncio.all_tasks())
        await watch_and_cancel(15)
        await self.falls_to(tasks, lambda: len(asyncio.all_tasks()), "tasks")
        await self.falls_to(files + 3, open_files, "open files")

    async def falls_to(self, limit: int, count: Callable[[], int], what: str) -> None:
        """Raise AssertionError unless the count falls to the limit in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience):
                while count() > limit:  # noqa: ASYNC110 - nobody tells when a file is closed
                    await asyncio.sleep(0.01)
        assert count() <= limit, f"{count()} {what} are left, at most {limit} were expected"
