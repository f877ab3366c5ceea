"""Faults of time and identity: an id that is used twice, a clock that jumps."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshkit import Mesh
from tests.faults.clock import Clock
from tests.faults.report import Cell, Stopwatch, fault
from tests.faults.world import LONGER_THAN_A_LEASE, World
from tests.registry.processes import Nursery
from tests.support.processes import ServiceProcess
from tests.support.waiting import aeventually

HOUR = 3600


@pytest.fixture
def nursery(world: World) -> Iterator[Nursery]:
    """Processes that register what they are told to."""
    nursery = Nursery(world.backend.url())
    try:
        yield nursery
    finally:
        nursery.close()


@fault("same instance id registered twice")
async def test_same_id(world: World, cell: Cell, nursery: Nursery) -> None:
    """A second living process with the id of a first one is refused or takes its place, and is no
    double; one that takes the place of a dead one stays when that one's time is up."""
    name = f"{world.service}-same"
    for process in "abc":
        nursery.spawn(process)
    async with world.consumer() as consumer:
        await _tell(nursery, "a", "register", world.service, name, 1)
        await consumer.sees_ids({name})
        answer = await _tell(nursery, "b", "register", world.service, name, 2)
        refused = "already registered" in answer
        assert refused or answer == "ok"
        cell.note("a second living one", "is refused" if refused else "takes its place")
        await world.lists_ids([name])
        for process in "ab":
            await asyncio.to_thread(nursery.kill, process)
        assert await _tell(nursery, "c", "register", world.service, name, 3) == "ok"
        watch = Stopwatch()
        while watch.seconds < LONGER_THAN_A_LEASE:
            await asyncio.sleep(2)
            # An engine that finds its registration gone says so, and it is registered anew.
            if await _tell(nursery, "c", "renew", name) != "ok":
                await _tell(nursery, "c", "register", world.service, name, 3)
        await world.lists_ids([name])
        await consumer.sees_ids({name})
        snapshot = consumer.subscription.snapshot
        assert snapshot
        assert [each.weight for each in snapshot.instances] == [3]
        await _tell(nursery, "c", "deregister", name)
        await world.lists_ids([])
        await consumer.sees_ids(set())
    assert consumer.doubled == set()


async def _tell(nursery: Nursery, process: str, *command: object) -> str:
    return await asyncio.to_thread(nursery.tell, process, *command)


@fault("clock of an instance jumps by an hour")
async def test_clock_jumps(world: World, cell: Cell, tmp_path: Path) -> None:
    """Forth and back: it stays registered, once and without a gap, and as a consumer of others it
    sees who comes and who goes."""
    clock = Clock(tmp_path)
    (jumping,) = await world.start(env=clock.env)
    (steady,) = await world.start()
    async with world.consumer() as consumer, Mesh(_static(jumping)) as direct:
        ask = direct.http(world.service)
        await _peers(ask, jumping, steady)
        await consumer.sees(jumping, steady)
        for ahead in (HOUR, -HOUR):
            clock.jump(ahead)
            shown = (await ask.get("/clock")).json()["time"]
            assert shown - time.time() == pytest.approx(ahead, abs=60)
            watch = Stopwatch()
            while watch.seconds < LONGER_THAN_A_LEASE / 2:
                assert jumping.instance in consumer.up
                await asyncio.sleep(0.1)
            await world.lists(jumping, steady)
        watch = Stopwatch()
        (late,) = await world.start()
        await _peers(ask, jumping, steady, late)
        late.send(signal.SIGTERM)
        await _peers(ask, jumping, steady)
        clock.jump(0)
        await _peers(ask, jumping, steady)
        await world.lists(jumping, steady)
    assert jumping.instance not in consumer.lost
    assert consumer.doubled == set()
    cell.note("gaps", 0)


def _static(process: ServiceProcess) -> str:
    """Return a registry that knows this process alone."""
    service = process.facts["service"]
    return f"static://{service}={process.url.removeprefix('http://')}"


async def _peers(client: Any, *processes: ServiceProcess) -> None:
    """Wait until the service sees exactly these."""

    async def seen() -> bool:
        answer = await client.get("/peers")
        return set(answer.json()["up"]) == {each.instance for each in processes}

    await aeventually(seen, within=60, every=0.1)
