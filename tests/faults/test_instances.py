"""Faults of instances: they die, leave, hang, and meet others in their place."""

from __future__ import annotations

import asyncio
import os
import signal

from tests.faults.report import Cell, Stopwatch, fault
from tests.faults.world import World
from tests.servers.ports import free_ports

RATE = 50
LEAVE_LIMIT = 5.0  # sooner than any server forgets the dead
LAG_LIMIT = 1.0
BLOCKED = 6.0


@fault("instance killed (SIGKILL)")
async def test_killed(world: World, cell: Cell) -> None:
    """No call of an idempotent method fails, from the first moment on; within the time to forget
    it is gone from consumers' lists and from the registry."""
    killed, *staying = await world.start(3)
    async with world.consumer() as consumer, consumer.load(RATE) as load:
        await load.answered_by(3)
        killed.send(signal.SIGKILL)
        limit = world.backend.forgets
        seen, listed = await asyncio.gather(
            consumer.misses(killed, within=limit), world.forgets(killed, within=limit)
        )
        await world.lists(*staying)
        await asyncio.sleep(1)
    assert load.errors == []
    assert consumer.up == {each.instance for each in staying}
    cell.note("failed calls", f"0 of {load.calls}")
    cell.took("off consumers' lists after", seen)
    cell.took("out of the registry after", listed)


@fault("instance ended (SIGTERM) under 200 calls/s")
async def test_terminated(world: World, cell: Cell) -> None:
    """No call fails, not even one that may not be repeated; it is off the list at once."""
    leaving, *staying = await world.start(3)
    async with world.consumer() as consumer, consumer.load(200, idempotent=False) as load:
        await load.answered_by(3)
        leaving.send(signal.SIGTERM)
        seen, listed = await asyncio.gather(
            consumer.misses(leaving, within=LEAVE_LIMIT),
            world.forgets(leaving, within=LEAVE_LIMIT),
        )
        assert await asyncio.to_thread(leaving.wait) == 0
        await world.lists(*staying)
    assert load.errors == []
    assert sum(load.answers.values()) == load.calls
    cell.note("failed calls", f"0 of {load.calls}")
    cell.took("off consumers' lists after", seen)
    cell.took("out of the registry after", listed)


@fault("instance hung (SIGSTOP)")
async def test_stopped(world: World, cell: Cell) -> None:
    """Not up any more within the time to forget (on local, where no lease tells, within that of the
    others); back when it continues, registered once."""
    hung, *others = await world.start(2)
    async with world.consumer() as consumer:
        await consumer.sees(hung, *others)
        hung.send(signal.SIGSTOP)
        seen = await consumer.misses(hung, within=world.backend.notices_hang)
        hung.send(signal.SIGCONT)
        back = await consumer.sees(hung, *others)
        await world.lists(hung, *others)
    assert consumer.doubled == set()
    cell.took("off consumers' lists after", seen)
    cell.took("back after", back)


@fault("event loop of an instance blocked")
async def test_blocked(world: World, cell: Cell) -> None:
    """Shown as down soon after the limit set for the loop (1 s here), although its heartbeat goes
    on; up again when the loop runs, registered once."""
    blocked, *others = await world.start(2, env={"MESHKIT_LOOP_LAG_LIMIT": str(LAG_LIMIT)})
    async with world.consumer() as consumer:
        await consumer.sees(blocked, *others)
        request = asyncio.create_task(_block(blocked.url, BLOCKED))
        down = await consumer.misses(blocked, within=BLOCKED)
        snapshot = await consumer.mesh.instances(world.service)
        assert {each.id for each in snapshot.instances} == {
            each.instance for each in (blocked, *others)
        }
        await request
        back = await consumer.sees(blocked, *others)
        await world.lists(blocked, *others)
    cell.took("shown as down after", down)
    cell.took("up again after", back)


async def _block(url: str, seconds: float) -> None:
    """Have the service's loop blocked; returns when it is over."""
    address = url.removeprefix("http://")
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET /block?seconds={seconds} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
    writer.write(f"{request}\r\n".encode())
    await reader.read()
    writer.close()
    await writer.wait_closed()


@fault("port of a killed instance taken by another service")
async def test_port_reused(world: World, cell: Cell) -> None:
    """The other service is never called: it refuses what is meant for somebody else, unhandled,
    and the caller goes on to an instance of the service that it means."""
    port = str(free_ports(1)[0])
    (killed,) = await world.start(1, "--port", port)
    staying = await world.start(2)
    async with world.consumer() as consumer, consumer.load(RATE) as load:
        await load.answered_by(3)
        killed.send(signal.SIGKILL)
        await asyncio.to_thread(killed.wait)
        (other,) = await world.start(1, "--port", port, service=f"{world.service}-b")
        await asyncio.sleep(2)
        await consumer.misses(killed, within=world.backend.forgets)
    assert load.answers.keys() == {str(each.pid) for each in (killed, *staying)}
    assert load.errors == []
    async with world.consumer() as consumer:
        calls = await consumer.mesh.http(f"{world.service}-b").get("/calls")
    assert calls.json() == {"calls": 0}
    assert calls.headers["x-meshkit-instance"] == other.instance
    cell.note("calls that reached it", calls.json()["calls"])
    cell.note("calls meanwhile", load.calls)


@fault("process forked, then killed")
async def test_forked(world: World, cell: Cell) -> None:
    """The child is no second instance, and does not keep its dead parent's registration alive."""
    parent, *others = await world.start(2)
    async with world.consumer() as consumer:
        await consumer.sees(parent, *others)
        child = 0
        while not child:  # until the balancer has come to it
            answer = await consumer.client.post("/fork")
            if answer.headers["x-meshkit-instance"] == parent.instance:
                child = answer.json()["child"]
            else:
                os.kill(answer.json()["child"], signal.SIGKILL)
        try:
            await world.lists(parent, *others)
            watch = Stopwatch()
            parent.send(signal.SIGKILL)
            await consumer.misses(parent, within=world.backend.forgets)
            await world.lists(*others, within=world.backend.forgets)
            os.kill(child, 0)  # it was alive all the time
            cell.took("forgotten, with a child alive, after", watch.seconds)
        finally:
            os.kill(child, signal.SIGKILL)
    assert consumer.doubled == set()
