"""Many instances of many services that come and go, watched all the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator

from meshkit import Mesh
from meshkit.discovery.followed import Followed
from meshkit.errors import LeaseLost
from meshkit.model import Endpoint, Instance
from meshkit.registry import Lease, Registry, open_registry
from tests.faults.report import Cell, Stopwatch, fault
from tests.faults.world import PATIENCE, World
from tests.support.holdings import fall_to, holdings, memory
from tests.support.waiting import aeventually

LONG = "TEST_CHURN_SECONDS"  # how long; make faults takes two minutes
SECONDS = float(os.environ.get(LONG, "20"))
SERVICES, INSTANCES, REGISTRARS = 50, 300, 3
PAUSE = 0.03  # between the changes of one registrar
WARM_UP = 3.0  # after which memory and connections are what they stay
MEMORY_LIMIT = 32.0  # MiB
SPARE_FILES = 24  # connections that are kept for the next request, up to 16 a registry


class Registrar:
    """One process's worth of instances, and what it has made of them.

    Attributes:
        leases: of what is registered now, by instance.
        changes: how many it has made.
    """

    def __init__(self, registry: Registry, instances: list[Instance], seed: int) -> None:
        self.leases: dict[str, tuple[Instance, Lease]] = {}
        self.changes = 0
        self._registry = registry
        self._instances = instances
        self._chance = random.Random(seed)

    async def churn(self, seconds: float) -> None:
        """Register and deregister at random, and renew what is registered."""
        watch = Stopwatch()
        while watch.seconds < seconds:
            instance = self._chance.choice(self._instances)
            if instance.id in self.leases and self._chance.random() < 0.5:
                del self.leases[instance.id]
                await self._registry.deregister(instance.id)
            else:
                await self._register(instance)
            self.changes += 1
            await asyncio.sleep(PAUSE)

    async def keep(self) -> None:
        """Renew until cancelled."""
        while True:
            for instance, lease in tuple(self.leases.values()):
                try:
                    await self._registry.renew(lease)
                except LeaseLost:
                    if instance.id in self.leases:  # else it was deregistered meanwhile
                        await self._register(instance)
            await asyncio.sleep(2)

    async def leave(self) -> None:
        """Deregister everything."""
        for instance_id in tuple(self.leases):
            del self.leases[instance_id]
            await self._registry.deregister(instance_id)

    async def _register(self, instance: Instance) -> None:
        self.leases[instance.id] = (instance, await self._registry.register(instance))


@fault("300 instances of 50 services come and go")
async def test_churn(world: World, cell: Cell) -> None:
    """For two minutes (20 s in an ordinary test run): what watches show in the end is the truth,
    and no connection, task, file, thread or memory is left behind."""
    names = [f"{world.service}-{number}" for number in range(SERVICES)]
    async with Mesh(world.backend.url()) as mesh:  # what a library keeps once it was used
        await mesh.target(names[0]).subscription.known()
    before = holdings()
    async with Mesh(world.backend.url()) as mesh, _registrars(world, names) as registrars:
        subscriptions = [mesh.target(name).subscription for name in names]
        await _churn(registrars, WARM_UP)
        await _leave(registrars)
        idle, used = holdings(), memory()
        await _churn(registrars, SECONDS)
        watch = Stopwatch()

        async def equal() -> bool:
            return _shown(subscriptions) == _truth(names, registrars)

        await aeventually(equal, within=PATIENCE, every=0.05)
        cell.took("views equal the truth after", watch.seconds)
        cell.note("changes", sum(each.changes for each in registrars))
        await _leave(registrars)

        await fall_to(idle, spare=SPARE_FILES)
        grown = memory() - used
    assert grown < MEMORY_LIMIT, f"{grown:.1f} MiB more than after the warm-up"
    cell.note("memory added", f"{max(0.0, grown):.1f} MiB")

    await fall_to(before, spare=2)


async def _churn(registrars: list[Registrar], seconds: float) -> None:
    await asyncio.gather(*(each.churn(seconds) for each in registrars))


async def _leave(registrars: list[Registrar]) -> None:
    await asyncio.gather(*(each.leave() for each in registrars))


def _truth(names: list[str], registrars: list[Registrar]) -> dict[str, set[str] | None]:
    found: dict[str, set[str]] = {name: set() for name in names}
    for registrar in registrars:
        for instance, _ in registrar.leases.values():
            found[instance.service].add(instance.id)
    return dict(found)


def _shown(subscriptions: list[Followed]) -> dict[str, set[str] | None]:
    return {
        each.service: {one.id for one in each.snapshot.up} if each.snapshot else None
        for each in subscriptions
    }


@contextlib.asynccontextmanager
async def _registrars(world: World, names: list[str]) -> AsyncIterator[list[Registrar]]:
    """Several registry objects with a share of the instances each, all kept alive."""
    instances = [
        Instance(
            id=f"{names[number % SERVICES]}-i{number}",
            service=names[number % SERVICES],
            endpoints={"http": Endpoint("127.0.0.1", 1 + number)},
        )
        for number in range(INSTANCES)
    ]
    async with contextlib.AsyncExitStack() as stack:
        registrars = []
        for number in range(REGISTRARS):
            registry = await stack.enter_async_context(open_registry(world.backend.url()))
            registrars.append(Registrar(registry, instances[number::REGISTRARS], number))
        tasks = [asyncio.create_task(each.keep()) for each in registrars]
        try:
            yield registrars
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
