"""Instances by number, and a registry whose failures are commanded."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator

from meshkit.errors import RegistryError
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot, Status
from meshkit.registry import Registry
from meshkit.registry.memory import MemoryRegistry

SERVICE = "users"


@functools.cache
def instance(
    number: int, *, status: Status = Status.UP, transports: tuple[str, ...] = ("http",)
) -> Instance:
    """Return the instance of this number; its id sorts as the number does."""
    return Instance(
        id=f"users-{number:03}",
        service=SERVICE,
        status=status,
        endpoints={each: Endpoint("127.0.0.1", 8000 + number) for each in transports},
    )


def snapshot(*numbers: int) -> Snapshot:
    """Return the list of these instances, all up."""
    return Snapshot(service=SERVICE, instances=tuple(instance(number) for number in numbers))


def numbers(snapshot: Snapshot | None) -> list[int]:
    """Return the numbers of a snapshot's instances."""
    assert snapshot is not None
    return [int(each.id.removeprefix("users-")) for each in snapshot.instances]


class Commanded(Registry):
    """A memory registry of one test, which is away while ``failure`` is set.

    Attributes:
        failure: raised by every read and by every watch, also those under way.
        settle: as in the contract, of this object alone.
        watches: how often a watch was begun.
    """

    def __init__(self, name: str, *, settle: float = 0.0) -> None:
        super().__init__(f"commanded://{name}")
        self.inner = MemoryRegistry(f"memory://{name}", name)
        self.settle = settle
        self.watches = 0
        self._failure: Exception | None = None
        self._failed = asyncio.Event()

    @property
    def failure(self) -> Exception | None:
        return self._failure

    @failure.setter
    def failure(self, error: Exception | None) -> None:
        self._failure = error
        self._failed.set() if error is not None else self._failed.clear()

    async def put(self, *instances: Instance) -> None:
        for each in instances:
            await self.inner.register(each)

    async def remove(self, *numbers: int) -> None:
        for number in numbers:
            await self.inner.deregister(instance(number).id)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        self.watches += 1
        inner = self.inner.watch(service)
        failed = asyncio.ensure_future(self._failed.wait())
        following = asyncio.ensure_future(anext(inner))
        try:
            while True:
                await asyncio.wait({failed, following}, return_when=asyncio.FIRST_COMPLETED)
                if self._failure is not None:
                    raise self._failure
                yield following.result()
                following = asyncio.ensure_future(anext(inner))
        finally:
            failed.cancel()
            following.cancel()
            await asyncio.gather(failed, following, return_exceptions=True)
            await inner.aclose()

    async def services(self) -> tuple[ServiceInfo, ...]:
        if self._failure is not None:
            raise self._failure
        return await self.inner.services()


def away() -> RegistryError:
    """Return what an engine raises when its server does not answer."""
    return RegistryError("commanded:// does not answer")
