"""Faults of the registry's servers: they die, come back (also empty), hang, lose their leader."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

from meshkit.errors import RegistryError
from meshkit.registry import open_registry
from meshkit.testing.registry_fixtures import make
from tests.faults.report import Cell, Stopwatch, fault
from tests.faults.world import PATIENCE, Consumer, World
from tests.support.load import Load
from tests.support.processes import ServiceProcess

RATE = 50
AWAY = 3.0
HUNG = 20.0
SHUTDOWN_LIMIT = 28.0  # the setting's default


@fault("registry restarted with its data")
async def test_restarted(world: World, cell: Cell) -> None:
    """All servers are killed, and an instance with them, and come back with their data: no call
    fails, no consumer sees an empty list, the living are registered once, the dead stay away."""
    async with _under_load(world) as (consumer, load, (dying, *living)):
        await asyncio.to_thread(world.backend.kill)
        dying.send(signal.SIGKILL)
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(world.backend.start)
        watch = Stopwatch()
        # With its registry the lease of the dead one begins anew.
        limit = PATIENCE + world.backend.forgets
        await world.lists(*living, within=limit)
        cell.took("registry right after", watch.seconds)
        await _settled(world, consumer, living)
    _calm(consumer, load)
    cell.note("failed calls", f"0 of {load.calls}")


@fault("registry restarted empty")
async def test_restarted_empty(world: World, cell: Cell) -> None:
    """All servers are killed, and an instance with them, and come back without their data: no
    call fails, no consumer sees an empty list, every living instance registers itself again."""
    async with _under_load(world) as (consumer, load, (dying, *living)):
        await asyncio.to_thread(world.backend.kill)
        dying.send(signal.SIGKILL)
        await asyncio.to_thread(world.backend.empty)
        await asyncio.to_thread(world.backend.start)
        watch = Stopwatch()
        await world.lists(*living)
        cell.took("all registered again after", watch.seconds)
        await _settled(world, consumer, living)
    _calm(consumer, load)
    cell.note("failed calls", f"0 of {load.calls}")


@fault("registry hung for 20 s")
async def test_hung(world: World, cell: Cell) -> None:
    """All servers stop answering: no call fails; a service that is ended meanwhile, and a
    consumer that is closed, end in time; afterwards all is right, and no task or thread stays."""
    async with _under_load(world) as (consumer, load, (leaving, *living)):
        async with world.consumer() as other:
            await other.sees(leaving, *living)
            before = _running()
            async with contextlib.AsyncExitStack() as stack:
                await asyncio.to_thread(world.backend.pause)
                stack.push_async_callback(asyncio.to_thread, world.backend.resume)
                hung = Stopwatch()
                leaving.send(signal.SIGTERM)
                assert await asyncio.to_thread(leaving.wait, SHUTDOWN_LIMIT) == 0
                cell.took("a service ended in", hung.seconds)
                closing = Stopwatch()
                await other.mesh.aclose()
                cell.took("a consumer closed in", closing.seconds)
                await asyncio.sleep(max(0.0, HUNG - hung.seconds))
        watch = Stopwatch()
        await asyncio.to_thread(world.backend.wait_healthy)
        await world.lists(*living, within=PATIENCE + world.backend.forgets)
        cell.took("registry right after", watch.seconds)
        await _settled(world, consumer, living)
        await _falls_to(before, _running)
    _calm(consumer, load)
    cell.note("failed calls", f"0 of {load.calls}")


@fault("leader killed")
async def test_leader_killed(world: World, cell: Cell) -> None:
    """Watches recover by themselves: an instance registered during the election is seen; no call
    fails, and nobody is lost."""
    async with _under_load(world) as (consumer, load, processes):
        leader = world.backend.leader()
        await asyncio.to_thread(leader.kill)
        watch = Stopwatch()
        new = make(world.service, "new")
        try:
            async with open_registry(world.backend.url()) as registry:
                await _insist(lambda: registry.register(new))
                cell.took("registering works after", watch.seconds)
                everybody = {new.id, *(each.instance for each in processes)}
                await consumer.sees_ids(everybody)
                cell.took("the new instance is seen after", watch.seconds)
                await world.lists_ids(everybody)
                await _insist(lambda: registry.deregister(new.id))
                await consumer.sees(*processes)
        finally:
            await asyncio.to_thread(leader.start)
            await asyncio.to_thread(world.backend.wait_healthy)
        await _settled(world, consumer, processes)
    # The new one serves nothing: it was refused a connection, which costs no call.
    _calm(consumer, load)
    cell.note("failed calls", f"0 of {load.calls}")


@contextlib.asynccontextmanager
async def _under_load(
    world: World,
) -> AsyncIterator[tuple[Consumer, Load, list[ServiceProcess]]]:
    """Three instances and a consumer that has heard of all."""
    processes = await world.start(3)
    async with world.consumer() as consumer, consumer.load(RATE) as load:
        await load.answered_by(3)
        await world.lists(*processes)
        yield consumer, load, processes


async def _settled(world: World, consumer: Consumer, living: list[ServiceProcess]) -> None:
    """Wait until both views are right, and see that they stay so for a while."""
    await consumer.sees(*living)
    await asyncio.sleep(2)
    await world.lists(*living)
    await consumer.sees(*living)


async def _insist(attempt: Callable[[], Awaitable[object]]) -> None:
    """Repeat what may fail while the cluster has no leader."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(RegistryError):
                await attempt()
                return
            await asyncio.sleep(0.05)


def _calm(consumer: Consumer, load: Load) -> None:
    assert load.errors == []
    assert not consumer.emptied
    assert consumer.doubled == set()


def _running() -> int:
    """Tasks and threads of this process, the calls of a load aside."""
    tasks = [task for task in asyncio.all_tasks() if "Load._one" not in repr(task.get_coro())]
    return len(tasks) + threading.active_count()


async def _falls_to(limit: int, count: Callable[[], int]) -> None:
    async with asyncio.timeout(PATIENCE):
        while count() > limit:
            await asyncio.sleep(0.1)
