"""What a registry owes to its users while its server can't be reached.

    class TestRedisIsDown(UnreachableContract):
        @pytest.fixture
        def opener(self, closed_port: int) -> Opener:
            return lambda: open_registry(f"redis://127.0.0.1:{closed_port}")

A failed read that passes for an empty list takes a service off the mesh; an exception of the
library underneath is a traceback for somebody who can't do anything about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meshkit.errors import LeaseLost, RegistryError
from meshkit.registry.base import Lease, Registry
from meshkit.testing.registry_fixtures import Opener, RegistryFixtures, make, open_files

__all__ = ["Opener", "UnreachableContract"]

Operation = Callable[[Registry, str], Awaitable[Any]]
READS: dict[str, Operation] = {
    "instances": lambda registry, service: registry.instances(service),
    "watch": lambda registry, service: anext(registry.watch(service)),
    "services": lambda registry, _: registry.services(),
    "watch_services": lambda registry, _: anext(registry.watch_services()),
}
WRITES: dict[str, Operation] = {
    "register": lambda registry, service: registry.register(make(service)),
    "renew": lambda registry, service: registry.renew(Lease(instance_id=service, ttl=10.0)),
}
OPERATIONS = {**READS, **WRITES}


@pytest.mark.anyio
class UnreachableContract(RegistryFixtures):
    """See the module. The fixture ``opener`` opens a registry that nobody answers for."""

    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
    async def test_it_is_an_error_of_one_line(
        self, reader: Registry, service: str, operation: Operation
    ) -> None:
        """In time, and none that says anything about the registration."""
        async with asyncio.timeout(self.patience):
            with pytest.raises(RegistryError) as caught:
                await operation(reader, service)
        assert not isinstance(caught.value, LeaseLost)
        assert str(caught.value)
        assert "\n" not in str(caught.value)

    async def test_it_leaves_nothing(self, opener: Opener, service: str) -> None:
        """A caller retries for as long as the server is away: hours, at times."""

        async def fail_and_close() -> None:
            async with opener() as registry:
                for _ in range(3):
                    with pytest.raises(RegistryError):
                        await registry.instances(service)

        await fail_and_close()  # what the first one leaves is the library's, once per process
        files, tasks = open_files(), len(asyncio.all_tasks())
        await fail_and_close()
        await self.falls_to(tasks, lambda: len(asyncio.all_tasks()), "tasks")
        await self.falls_to(files, open_files, "open files")
