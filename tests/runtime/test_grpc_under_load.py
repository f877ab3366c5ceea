"""200 gRPC calls a second over three real instances, while one of them dies, hangs or leaves."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from meshkit import Mesh
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.support.load import Load, bearable
from tests.support.processes import Processes, ServiceProcess
from tests.support.rounds import best_of
from tests.support.waiting import aeventually

RATE = 200
SERVICE = "echo-rpc"
# Its proto says NO_SIDE_EFFECTS, which is how the client knows that it may repeat it.
IDEMPOTENT = "Look"
OTHER = "Say"
TRY_TIME = 0.4  # seconds until a second instance is asked


def caller(mesh: Mesh, method: str) -> Callable[[], Any]:
    stub = mesh.grpc(echo_pb2_grpc.EchoStub, SERVICE)

    async def call() -> str:
        reply = await getattr(stub, method)(echo_pb2.EchoRequest(text="x"))
        return str(reply.instance)

    return call


def pids(*processes: ServiceProcess) -> set[str]:
    return {str(each.pid) for each in processes}


async def test_a_killed_one_costs_idempotent_calls_at_most_a_retry(
    any_services: Processes,
) -> None:
    killed, *staying = any_services.start_all("echo_rpc:EchoRpc", 3)
    async with Mesh(any_services.registry) as mesh:
        async with Load(caller(mesh, IDEMPOTENT), rate=RATE) as load:
            await load.answered_by(3)
            killed.send(signal.SIGKILL)
            await asyncio.sleep(2)
            load.answers.clear()
            await asyncio.sleep(1)
        stats = mesh.channel(SERVICE).stats
    assert load.errors == []
    assert load.answers.keys() == pids(*staying)
    # Those under way when it died, and the first to be refused: 20 ms each at a third of 200/s.
    assert 1 <= stats.retried <= 20


async def test_a_killed_one_costs_other_calls_only_those_under_way(
    any_services: Processes,
) -> None:
    killed, *_ = any_services.start_all("echo_rpc:EchoRpc", 3)
    async with Mesh(any_services.registry) as mesh:
        async with Load(caller(mesh, OTHER), rate=RATE) as load:
            await load.answered_by(3)
            killed.send(signal.SIGKILL)
            await asyncio.sleep(2)
        channel = mesh.channel(SERVICE)
    assert len(load.errors) <= 10
    assert all("not known to be idempotent" in error for error in load.errors), load.errors
    assert channel.stats.failed == len(load.errors)


async def test_a_hung_one_costs_idempotent_calls_a_try_time(any_services: Processes) -> None:
    hung, *staying = any_services.start_all("echo_rpc:EchoRpc", 3)
    async with Mesh(any_services.registry) as mesh:
        stats = mesh.channel(SERVICE).stats

        call = caller(mesh, IDEMPOTENT)

        async def play() -> list[object]:
            rate = await bearable(call, rate=RATE, limit=TRY_TIME)
            async with Load(call, rate=rate) as load:
                await load.answered_by(3)
                load.errors.clear()
                before = stats.hedged
                hung.send(signal.SIGSTOP)
                await asyncio.sleep(3)
                load.answers.clear()  # from here on as if it were not there
                slowest = await load.calm(TRY_TIME)
            answered = load.answers.keys()
            hung.send(signal.SIGCONT)
            assert answered <= pids(*staying)
            assert stats.hedged > before
            return [*load.errors, *[slowest] * (slowest > TRY_TIME)]

        await best_of(play)


async def test_a_hung_one_is_soon_left_alone_by_other_calls(any_services: Processes) -> None:
    hung, *_ = any_services.start_all("echo_rpc:EchoRpc", 3)
    async with Mesh(any_services.registry, timeout=2) as mesh:
        call = caller(mesh, OTHER)

        async def play() -> list[str]:
            rate = await bearable(call, rate=RATE, limit=TRY_TIME)
            async with Load(call, rate=rate) as load:
                await load.answered_by(3)
                load.errors.clear()
                hung.send(signal.SIGSTOP)
                await asyncio.sleep(5)
                errors = len(load.errors)
                await asyncio.sleep(2)
            hung.send(signal.SIGCONT)
            # Of 1,000; the others went elsewhere, and all of them after that.
            return [] if errors == len(load.errors) <= RATE / 2 else load.errors

        await best_of(play)


@pytest.mark.parametrize("thread", ["0", "1"], ids=["one loop", "two loops"])
async def test_one_that_leaves_fails_no_call_of_any_kind(
    any_services: Processes, thread: str
) -> None:
    env = {"MESHKIT_GRPC_THREAD": thread}
    running = [any_services.start("echo_rpc:EchoRpc", env=env) for _ in range(3)]
    leaving, *staying = [each.ready() for each in running]
    async with (
        Mesh(any_services.registry) as mesh,
        Load(caller(mesh, OTHER), rate=RATE) as load,
    ):
        await load.answered_by(3)
        leaving.send(signal.SIGTERM)
        assert await asyncio.to_thread(leaving.wait) == 0
        load.answers.clear()
        await asyncio.sleep(1)
    assert load.errors == []
    assert load.answers.keys() == pids(*staying)


async def test_a_rolling_restart_fails_no_call(any_services: Processes) -> None:
    running = any_services.start_all("echo_rpc:EchoRpc", 2)
    async with (
        Mesh(any_services.registry) as mesh,
        Load(caller(mesh, OTHER), rate=RATE / 4) as load,
    ):
        await load.answered_by(2)
        for turn in range(2):
            replaced = []
            for old in running:
                new = await asyncio.to_thread(any_services.start("echo_rpc:EchoRpc").ready)
                replaced.append(new)
                old.send(signal.SIGTERM)
                assert await asyncio.to_thread(old.wait) == 0
            running = replaced
            await load.answered_by(2 * (turn + 2))
    assert load.errors == []


async def test_all_gone_and_back(services: Processes) -> None:
    first = services.start_all("echo_rpc:EchoRpc", 2)
    async with Mesh(services.registry) as mesh:
        call = caller(mesh, IDEMPOTENT)
        await call()
        for each in first:
            each.send(signal.SIGKILL)
            await asyncio.to_thread(each.wait)
        began = time.monotonic()
        with pytest.raises(Exception, match=r"no instance|none of|can't be reached"):
            await call()
        assert time.monotonic() - began < 5
        second = await asyncio.to_thread(services.start("echo_rpc:EchoRpc").ready)

        async def answers() -> bool:
            try:
                return bool(await call() == str(second.pid))
            except Exception:
                return False

        await aeventually(answers)
