"""Somebody is cut off from the registry: an instance, a consumer, or both from one node."""

from __future__ import annotations

import asyncio
import signal

from tests.faults.proxy import Proxy
from tests.faults.report import Cell, Stopwatch, fault
from tests.faults.world import LONGER_THAN_A_LEASE, PATIENCE, World, url_through

RATE = 50


@fault("instance cut off")
async def test_instance_cut_off(world: World, cell: Cell) -> None:
    """One that no longer reaches the registry, and is told nothing, is forgotten within the time
    to forget; no call fails; when the way is free again it is registered once."""
    async with world.proxies() as proxies:
        others = await world.start(2)
        (lost,) = await world.start(url=url_through(world.backend, proxies))
        async with world.consumer() as consumer, consumer.load(RATE) as load:
            await load.answered_by(3)
            for proxy in proxies:
                proxy.hang()
            limit = world.backend.forgets
            seen, listed = await asyncio.gather(
                consumer.misses(lost, within=limit), world.forgets(lost, within=limit)
            )
            await world.lists(*others)
            for proxy in proxies:
                proxy.heal()
            watch = Stopwatch()
            await world.lists(lost, *others)
            await consumer.sees(lost, *others)
            back = watch.seconds
            await asyncio.sleep(2)
            await world.lists(lost, *others)
        assert load.errors == []
        assert consumer.doubled == set()
    cell.took("off consumers' lists after", seen)
    cell.took("out of the registry after", listed)
    cell.took("back after", back)
    cell.note("failed calls", f"0 of {load.calls}")


@fault("consumer cut off")
async def test_consumer_cut_off(world: World, cell: Cell) -> None:
    """A consumer that no longer reaches the registry, first told nothing, then refused, keeps its
    list and calls on, also while an instance dies; later it sees who came and who went."""
    async with world.proxies() as proxies:
        dying, *staying = await world.start(3)
        url = url_through(world.backend, proxies)
        async with world.consumer(url=url) as consumer, consumer.load(RATE) as load:
            await load.answered_by(3)
            for proxy in proxies:
                proxy.hang()
            dying.send(signal.SIGKILL)
            staying += await world.start()
            for proxy in proxies:
                await proxy.cut()
            await asyncio.sleep(2)
            assert {each.instance for each in staying[:2]} <= consumer.up
            await world.forgets(dying, within=PATIENCE)
            for proxy in proxies:
                await proxy.restore()
            cell.took("list right after", await consumer.sees(*staying))
            await load.answered_by(4)
        assert load.errors == []
        assert not consumer.emptied
        assert load.answers.keys() == {str(each.pid) for each in (dying, *staying)}
    cell.note("failed calls", f"0 of {load.calls}")


@fault("one node cut off")
async def test_one_node_cut_off(world: World, cell: Cell) -> None:
    """An instance and a consumer whose node hangs, or rather the way to it, go on with another
    node of their list; nobody is registered twice when it comes back."""
    async with world.proxies() as ways, world.proxies() as consumers_ways:
        others = await world.start(1)
        (moving,) = await world.start(url=url_through(world.backend, ways))
        url = url_through(world.backend, consumers_ways)
        async with world.consumer(url=url) as consumer, consumer.load(RATE) as load:
            await load.answered_by(2)
            await world.lists(moving, *others)
            cut = [_in_use(ways), _in_use(consumers_ways)]
            for proxy in cut:
                proxy.hang()
            watch = Stopwatch()
            late = await world.start()
            await consumer.sees(moving, *others, *late)
            cell.took("a new instance is seen after", watch.seconds)
            # It has moved, or was forgotten and has come back.
            await asyncio.sleep(max(0.0, LONGER_THAN_A_LEASE - watch.seconds))
            await world.lists(moving, *others, *late)
            await consumer.sees(moving, *others, *late)
            assert _in_use(ways) is not cut[0]
            for proxy in cut:
                proxy.heal()
            await asyncio.sleep(2)
            await world.lists(moving, *others, *late)
            await consumer.sees(moving, *others, *late)
        assert load.errors == []
        assert not consumer.emptied
        assert consumer.doubled == set()
    cell.note("failed calls", f"0 of {load.calls}")


def _in_use(proxies: list[Proxy]) -> Proxy:
    """Return the one that was spoken through last."""
    return max(proxies, key=lambda proxy: proxy.used_at)
