"""Connections: one per instance, shared, closed in time; and the channel's own life."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit.client.grpc import ChannelPool, MeshChannel
from meshkit.client.grpc.attempts import Attempts
from meshkit.discovery.balancing import RoundRobin
from meshkit.errors import ConfigError, NoInstances
from meshkit.model import Endpoint, Instance, Status
from tests.client.grpc_servers import (
    Callers,
    Running,
    calling,
    describe,
    new_stub,
    plain_serving,
    relay,
    serving,
)
from tests.client.http_servers import refusing
from tests.protos.echo_pb2 import EchoRequest
from tests.support.load import Load

State = grpc.ChannelConnectivity
ESTABLISHED = "01"


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with serving("echo-a") as running:
        yield running


def say(text: str) -> EchoRequest:
    return EchoRequest(text=text)


def connections(instance: Instance) -> int:
    """Count this machine's connections to the instance, as the kernel knows them."""
    port = f"{instance.endpoints['grpc'].port:04X}"
    gc.collect()  # older versions of grpcio leave calls, and their connections, to the collector
    tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    fields = [line.split() for line in tables.splitlines()]
    return sum(each[2].endswith(f":{port}") and each[3] == ESTABLISHED for each in fields)


async def until(probe: Any) -> None:
    async with asyncio.timeout(15):
        while not probe():
            await asyncio.sleep(0.02)


def listed(ours: Callers) -> set[str]:
    snapshot = ours.target.subscription.snapshot
    return {instance.id for instance in snapshot.instances} if snapshot else set()


async def names(stub: Any, calls: int) -> set[str]:
    return {(await stub.Say(say("x"))).instance for _ in range(calls)}


# Connections.


async def test_calls_and_stubs_share_a_connection(server: Running) -> None:
    async with calling(server.instance) as ours:
        await asyncio.gather(*(ours.stub.Say(say("x")) for _ in range(20)))
        await new_stub(ours.channel).Say(say("x"))
        assert connections(server.instance) == len(server.echo.peers) == 1


async def test_channels_share_the_connections_of_a_pool(server: Running) -> None:
    pool = ChannelPool()
    async with calling(server.instance, pool=pool) as ours:
        await ours.stub.Say(say("x"))
        async with MeshChannel(ours.target, timeout=1.0, pool=pool) as other:
            await new_stub(other).Say(say("x"))
        await ours.stub.Say(say("x"))  # closing the other one left the pool alone
        assert len(server.echo.peers) == 1
    assert connections(server.instance) == 1
    await pool.close()
    await pool.close()
    await until(lambda: connections(server.instance) == 0)


async def test_meshes_and_event_loops_of_a_process_share_a_connection(server: Running) -> None:
    async def call_from_a_mesh_of_its_own(instance: Instance) -> None:
        async with calling(instance) as others:
            assert (await others.stub.Say(say("x"))).instance == "echo-a"

    async with calling(server.instance) as ours:
        await ours.stub.Say(say("x"))
        await call_from_a_mesh_of_its_own(server.instance)
        await asyncio.to_thread(asyncio.run, call_from_a_mesh_of_its_own(server.instance))
        await ours.stub.Say(say("x"))  # those who closed theirs left ours alone
        assert len(server.echo.peers) == 1
    await until(lambda: connections(server.instance) == 0)


async def test_instances_at_one_address_share_no_connection() -> None:
    async with plain_serving("echo") as running, calling(balancer=RoundRobin) as ours:
        for name in ("echo-a", "echo-b"):
            at = running.instance.endpoints["grpc"]
            await ours.registry.register(describe(name, at, named=False))
        await until(lambda: len(listed(ours)) == 2)
        await names(ours.stub, calls=4)
        assert len(running.echo.peers) == 2


async def test_a_connection_ends_with_its_instance_and_its_calls(server: Running) -> None:
    async with serving("echo-b") as other, calling(server.instance, other.instance) as ours:
        slow = ours.stub.Say(say("sleep 1"))
        await until(lambda: server.echo.texts)
        await ours.registry.deregister("echo-a")
        await until(lambda: listed(ours) == {"echo-b"})
        assert (await ours.stub.Say(say("x"))).instance == "echo-b"
        assert connections(server.instance) == 1
        assert (await slow).instance == "echo-a"
        del slow  # gRPC keeps a connection for as long as somebody holds a call on it
        await until(lambda: connections(server.instance) == 0)
        assert connections(other.instance) == 1


async def test_an_idle_connection_ends_with_its_instance(server: Running) -> None:
    async with calling(server.instance) as ours:
        await ours.stub.Say(say("x"))
        await ours.registry.deregister("echo-a")
        await until(lambda: connections(server.instance) == 0)


async def test_stubs_do_not_keep_the_connections_of_the_past() -> None:
    def channels() -> int:
        gc.collect()
        return sum(isinstance(each, grpc.aio.Channel) for each in gc.get_objects())

    async with calling() as ours:
        before = channels()
        for number in range(5):
            async with serving(f"echo-{number}") as running:
                await ours.registry.register(running.instance)
                await ours.stub.Say(say("x"), wait_for_ready=True)
                await ours.registry.deregister(running.instance.id)
                await until(lambda: not listed(ours))
        await until(lambda: channels() <= before + 1)


async def test_a_connection_stays_while_the_instance_is_listed(server: Running) -> None:
    async with calling(server.instance) as ours:
        await ours.stub.Say(say("x"))
        leaving = dataclasses.replace(server.instance, status=Status.DRAINING)
        await ours.registry.register(leaving)
        await until(lambda: ours.channel.get_state() is State.TRANSIENT_FAILURE)
        await ours.registry.register(server.instance)
        await until(lambda: ours.channel.get_state() is State.READY)
        await ours.stub.Say(say("x"))
        assert len(server.echo.peers) == 1


async def test_an_instance_that_moved_is_called_at_its_new_address(server: Running) -> None:
    async with (
        relay(server.instance.endpoints["grpc"]) as (endpoint, sent),
        calling(server.instance) as ours,
    ):
        await ours.stub.Say(say("x"))
        assert not sent
        moved = describe("echo-a", endpoint)
        await ours.registry.register(moved)
        await asyncio.sleep(0.1)
        await ours.stub.Say(say("x"))
        assert sent


async def test_a_new_instance_does_not_inherit_the_failures_at_its_address() -> None:
    with refusing() as address:
        gone, port = describe("echo-a", address), address.port
    async with calling(gone) as ours:
        for _ in range(3):
            with pytest.raises(NoInstances):
                await ours.stub.Say(say("x"))
        async with serving("echo-b", port=port) as running:
            await ours.registry.register(running.instance)
            await until(lambda: listed(ours) == {"echo-a", "echo-b"})
            assert (await ours.stub.Say(say("x"))).instance == "echo-b"


async def test_no_proxy_of_the_environment_is_used(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with calling(server.instance) as ours:
        assert (await ours.stub.Say(say("x"))).instance == "echo-a"


async def test_a_quiet_call_to_somebody_elses_server_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshkit.client.grpc.pool.KEEPALIVE", 1.0)
    async with plain_serving("echo-a") as running:
        async with calling(running.instance) as ours:
            assert (await ours.stub.Say(say("sleep 6"))).instance == "echo-a"
        # The control: whoever pings as often as meshkit's own servers allow is hung up on.
        address = running.instance.endpoints["grpc"]
        async with calling(describe("echo-a", address)) as ours:
            with pytest.raises(grpc.aio.AioRpcError, match="Too many pings"):
                await ours.stub.Say(say("sleep 6"))


# The list changes.


async def test_calls_follow_the_list_and_none_fails() -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(serving(name))
            for name in ("echo-a", "echo-b", "echo-c", "echo-d")
        }
        first, second, third, fourth = servers.values()
        ours = await stack.enter_async_context(
            calling(first.instance, second.instance, balancer=RoundRobin)
        )

        async def call() -> str:
            reply = await ours.stub.Say(say("x"))
            return str(reply.instance)

        async with Load(call, rate=100) as load:
            for joining, leaving in ((third, first), (fourth, second), (first, third)):
                await asyncio.sleep(0.5)
                await ours.registry.register(joining.instance)
                await asyncio.sleep(0.3)
                await ours.registry.deregister(leaving.instance.id)
            await asyncio.sleep(0.5)
        assert load.errors == []
        assert load.answers.keys() == servers.keys()
        assert min(load.answers.values()) > load.calls / 20
        assert await names(ours.stub, 8) == {"echo-a", "echo-d"}
        assert {name for name in servers if connections(servers[name].instance)} == {
            "echo-a",
            "echo-d",
        }


async def test_servers_that_leave_properly_lose_no_call() -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(serving(f"echo-{n}")) for n in range(4)]
        ours = await stack.enter_async_context(
            calling(*(each.instance for each in running), balancer=RoundRobin)
        )

        async def call() -> str:
            reply = await ours.stub.Say(say("sleep 0.05"))
            return str(reply.instance)

        async with Load(call, rate=100) as load:
            for leaving in running[:3]:
                await asyncio.sleep(0.4)
                await ours.registry.deregister(leaving.instance.id)
                await leaving.server.drain()
                await asyncio.sleep(0.2)
                await leaving.server.stop(grace=5)
            await asyncio.sleep(0.4)
        assert load.errors == []
        assert set(load.answers) == {each.instance.id for each in running}


# The channel.


async def test_the_channels_state_is_that_of_the_list(server: Running) -> None:
    async with calling() as ours:
        channel: grpc.aio.Channel = ours.channel
        assert channel.get_state() is State.CONNECTING
        await channel.wait_for_state_change(State.CONNECTING)
        assert channel.get_state(try_to_connect=True) is State.TRANSIENT_FAILURE
        ready = asyncio.ensure_future(channel.channel_ready())
        await asyncio.sleep(0.1)
        assert not ready.done()
        http_only = dataclasses.replace(
            server.instance, id="echo-h", endpoints={"http": Endpoint("127.0.0.1", 1)}
        )
        await ours.registry.register(http_only)
        await asyncio.sleep(0.1)
        assert not ready.done()
        await ours.registry.register(server.instance)
        await asyncio.wait_for(ready, 10)
        assert channel.get_state() is State.READY
        changed = asyncio.ensure_future(channel.wait_for_state_change(State.READY))
        await channel.close()
        await asyncio.wait_for(changed, 10)
        assert channel.get_state() is State.SHUTDOWN


async def test_a_closed_channel_takes_no_calls(server: Running) -> None:
    async with calling(server.instance) as ours:
        await ours.stub.Say(say("x"))
        waiting = asyncio.ensure_future(ours.channel.wait_for_state_change(State.READY))
        await asyncio.sleep(0)
        await ours.channel.close()
        await ours.channel.close()
        await waiting
        with pytest.raises(grpc.aio.UsageError, match="echo: the channel is closed"):
            ours.stub.Say(say("x"))
        with pytest.raises(grpc.aio.UsageError, match="echo: the channel is closed"):
            ours.stub.Chat()
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            await ours.channel.channel_ready()
        await until(lambda: connections(server.instance) == 0)


async def test_closing_cancels_the_calls_under_way(server: Running) -> None:
    async with calling(server.instance) as ours:
        slow = asyncio.ensure_future(ours.stub.Say(say("sleep 30")))
        stream = ours.stub.Chat()
        await stream.write(say("x"))
        waiting = ours.stub.Say(say("x"))
        await until(lambda: len(server.echo.texts) == 3)
        await ours.channel.close()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert stream.cancelled()
        assert waiting.done()


async def test_closing_leaves_a_shared_pool_and_ends_its_own_calls(server: Running) -> None:
    pool = ChannelPool()
    async with calling(server.instance, pool=pool) as ours:
        async with MeshChannel(ours.target, timeout=30.0, pool=pool) as other:
            slow = asyncio.ensure_future(new_stub(other).Say(say("sleep 30")))
            mine = asyncio.ensure_future(ours.stub.Say(say("sleep 1")))
            await until(lambda: len(server.echo.texts) == 2)
            await ours.registry.deregister("echo-a")
            await until(lambda: not listed(ours))
            nobody = asyncio.ensure_future(new_stub(other).Say(say("x"), wait_for_ready=True))
            await asyncio.sleep(0.1)
        for each in (slow, nobody):
            with pytest.raises(asyncio.CancelledError):
                await each
        assert (await mine).instance == "echo-a"
    await pool.close()


async def test_closing_gives_calls_the_time_it_is_told_to(server: Running) -> None:
    async with calling(server.instance) as ours:
        quick = asyncio.ensure_future(ours.stub.Say(say("sleep 0.5")))
        slow = asyncio.ensure_future(ours.stub.Say(say("sleep 30")))
        await until(lambda: len(server.echo.texts) == 2)
        await ours.channel.close(grace=3)
        assert (await quick).instance == "echo-a"
        with pytest.raises(asyncio.CancelledError):
            await slow


async def test_a_pool_that_is_closed_under_a_channel(server: Running) -> None:
    pool = ChannelPool()
    async with calling(server.instance, pool=pool) as ours:
        slow = asyncio.ensure_future(ours.stub.Say(say("sleep 30")))
        await until(lambda: server.echo.texts)
        await pool.close()
        with pytest.raises(asyncio.CancelledError):
            await slow
        with pytest.raises(grpc.aio.UsageError, match="closed"):
            ours.stub.Say(say("x"))


async def _use(ours: Callers) -> None:
    """Make calls of all kinds, with every end a call can have."""
    await ours.stub.Say(say("x"))
    await ours.stub.Join(iter([say("x")]))
    [reply async for reply in ours.stub.Repeat(EchoRequest(text="x", count=3))]
    ours.stub.Say(say("unattended"))
    for text in ("abort NOT_FOUND", "abort UNAVAILABLE", "sleep 30"):
        with pytest.raises(grpc.aio.AioRpcError):
            await ours.stub.Look(say(text), timeout=1 if text == "sleep 30" else None)
    abandoned = ours.stub.Chat()
    await abandoned.write(say("x"))
    ours.stub.Say(say("sleep 30")).cancel()
    await ours.registry.deregister("echo-a")
    await ours.stub.Say(say("x"))


def _left() -> tuple[int, int, int]:
    """Count open files, tasks, and objects that hold connections or calls."""
    gc.collect()
    kinds = (Attempts, ChannelPool, grpc.aio.Channel)
    objects = [each for each in gc.get_objects() if isinstance(each, kinds)]
    files = list(Path("/proc/self/fd").iterdir())
    return len(files), len(asyncio.all_tasks()), len(objects)


async def test_nothing_is_left_after_closing(server: Running) -> None:
    async def once() -> None:
        async with serving("echo-b") as other, calling(server.instance, other.instance) as ours:
            await _use(ours)

    await once()  # what gRPC makes once per process stays
    await asyncio.sleep(0.5)
    before = _left()
    for _ in range(3):
        await once()
    await until(lambda: all(now <= then for now, then in zip(_left(), before, strict=True)))


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
async def test_a_timeout_must_be_one(timeout: float) -> None:
    with pytest.raises(ConfigError, match="echo: timeout must be more than 0 s"):
        async with calling(timeout=timeout):
            pass


def test_http_needs_no_grpc() -> None:
    script = "import sys, meshkit.client.mesh; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
