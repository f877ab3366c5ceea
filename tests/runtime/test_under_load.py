"""200 calls a second over three real instances, HTTP and gRPC, while something happens to them.

GET and Look may be repeated. POST and Say may not, so what holds for them holds for calls of any
kind.
"""

import asyncio
import contextlib
import dataclasses
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from meshkit import CallError, Mesh
from meshkit.client.stats import CallStats
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.support.load import Load, bearable
from tests.support.processes import Processes, ServiceProcess
from tests.support.rounds import best_of
from tests.support.waiting import aeventually

RATE = 200
TIMEOUT = 2.0
PACED = "paced:Paced"

both_transports = pytest.mark.parametrize("transport", ["http", "grpc"])


@dataclasses.dataclass
class Caller:
    """Makes calls that may be repeated, and others; each returns who answered, a process id."""

    look: Callable[[], Awaitable[str]]
    change: Callable[[], Awaitable[str]]
    stats: CallStats


@contextlib.asynccontextmanager
async def calling(services: Processes, transport: str) -> AsyncIterator[Caller]:
    async with Mesh(services.registry, timeout=TIMEOUT) as mesh:
        yield http_caller(mesh) if transport == "http" else grpc_caller(mesh)


def http_caller(mesh: Mesh) -> Caller:
    client = mesh.http("paced")

    async def look() -> str:
        return str((await client.get("/work")).raise_for_status().json()["pid"])

    async def change() -> str:
        return str((await client.post("/work")).raise_for_status().json()["pid"])

    return Caller(look, change, client.stats)


def grpc_caller(mesh: Mesh) -> Caller:
    channel = mesh.channel("paced")
    stub = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]

    async def look() -> str:
        return str((await stub.Look(echo_pb2.EchoRequest())).instance)

    async def change() -> str:
        return str((await stub.Say(echo_pb2.EchoRequest())).instance)

    return Caller(look, change, channel.stats)


def pids(*processes: ServiceProcess) -> set[str]:
    return {str(each.pid) for each in processes}


def start(services: Processes, *environments: Mapping[str, str]) -> list[ServiceProcess]:
    """Start one instance for each of these environments."""
    started = [services.start(PACED, env=each) for each in environments]
    return [each.ready() for each in started]


@both_transports
async def test_kill_fails_no_idempotent_call(any_services: Processes, transport: str) -> None:
    killed, *staying = any_services.start_all(PACED, 3)
    async with calling(any_services, transport) as caller:
        async with Load(caller.look, rate=RATE) as load:
            await load.answered_by(3)
            before, under_way = caller.stats.retried, load.under_way
            killed.send(signal.SIGKILL)
            await asyncio.sleep(2)
            retried = caller.stats.retried - before
        assert load.errors == []
        assert load.answers.keys() == pids(killed, *staying)
        # Those that were under way, and at most one on each connection after that.
        assert retried <= 2 * max(under_way, 8)


@both_transports
async def test_kill_fails_only_what_was_under_way(any_services: Processes, transport: str) -> None:
    """A call that may have had an effect is not repeated, and all others go elsewhere."""
    killed, *staying = any_services.start_all(PACED, 3)
    async with calling(any_services, transport) as caller:
        async with Load(caller.change, rate=RATE) as load:
            await load.answered_by(3)
            under_way = load.under_way
            killed.send(signal.SIGKILL)
            await asyncio.sleep(2)
        assert len(load.errors) <= under_way + RATE * 0.02  # and those begun at that moment
        assert load.answers.keys() == pids(killed, *staying)


@both_transports
async def test_sigterm_fails_no_call(any_services: Processes, transport: str) -> None:
    leaving, *staying = any_services.start_all(PACED, 3)
    async with calling(any_services, transport) as caller:
        async with Load(caller.change, rate=RATE) as load:
            await load.answered_by(3)
            leaving.send(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
            await asyncio.sleep(1)
        assert load.errors == []
        assert sum(load.answers.values()) == load.calls > RATE
        assert load.answers.keys() == pids(leaving, *staying)


@both_transports
async def test_a_hung_instance_fails_no_idempotent_call(
    any_services: Processes, transport: str
) -> None:
    hung, *staying = any_services.start_all(PACED, 3)
    async with calling(any_services, transport) as caller:

        async def play() -> list[object]:
            rate = await bearable(caller.look, rate=RATE, limit=TIMEOUT / 2)
            async with Load(caller.look, rate=rate) as load:
                await load.answered_by(3)
                load.errors.clear()
                hung.send(signal.SIGSTOP)
                await asyncio.sleep(3)
                load.answers.clear()
                slowest = await load.calm(TIMEOUT / 2)
            answered = load.answers.keys()
            hung.send(signal.SIGCONT)
            assert answered <= pids(*staying)
            # Nobody waits for it any more: the slowest of a hundred is far from the call's limit.
            return [*load.errors, *[slowest] * (slowest > TIMEOUT / 2)]

        await best_of(play)


@both_transports
async def test_a_hung_instance_takes_few_calls_that_can_not_be_repeated(
    any_services: Processes, transport: str
) -> None:
    hung, *_ = any_services.start_all(PACED, 3)
    async with calling(any_services, transport) as caller:

        async def play() -> list[str]:
            rate = await bearable(caller.change, rate=RATE, limit=TIMEOUT / 2)
            async with Load(caller.change, rate=rate) as load:
                await load.answered_by(3)
                load.errors.clear()
                load.seconds.clear()
                hung.send(signal.SIGSTOP)
                await asyncio.sleep(5)
            hung.send(signal.SIGCONT)
            late = [each for each in load.seconds if each > TIMEOUT + 1]  # past their deadline
            return load.errors if late or len(load.errors) > RATE * 0.05 else []

        await best_of(play)


@both_transports
async def test_all_gone_fails_fast_and_recovers(any_services: Processes, transport: str) -> None:
    all_of_them = any_services.start_all(PACED, 2)
    async with calling(any_services, transport) as caller:
        await caller.look()
        for each in all_of_them:
            each.send(signal.SIGKILL)
        for each in all_of_them:
            await asyncio.to_thread(each.wait)
        began = time.monotonic()
        with pytest.raises(CallError, match=r"^paced: .*(no instance|none of)"):
            await caller.look()
        assert time.monotonic() - began < TIMEOUT  # it did not wait for anybody
        (back,) = any_services.start_all(PACED, 1)

        async def answered() -> bool:
            with contextlib.suppress(CallError):
                return await caller.look() in pids(back)
            return False

        await aeventually(answered, within=5)


@both_transports
async def test_two_rolling_restarts_fail_no_call(any_services: Processes, transport: str) -> None:
    running = any_services.start_all(PACED, 3)
    async with calling(any_services, transport) as caller:
        async with Load(caller.change, rate=RATE / 2) as load:
            await load.answered_by(3)
            for _ in range(2):
                for old in tuple(running):
                    running.append(await asyncio.to_thread(any_services.start(PACED).ready))
                    running.remove(old)
                    old.send(signal.SIGTERM)
                    assert await asyncio.to_thread(old.wait) == 0
            await load.answered_by(9)
        assert load.errors == []


@both_transports
async def test_one_that_is_slow_gets_little(services: Processes, transport: str) -> None:
    quick = {"PACED_SECONDS": "0.01"}
    slow, *_ = start(services, {"PACED_SECONDS": "0.2"}, quick, quick)
    async with calling(services, transport) as caller:
        async with Load(caller.change, rate=RATE) as load:
            await load.answered_by(3)
            load.answers.clear()
            await asyncio.sleep(5)
        assert load.errors == []
        share = load.answers[str(slow.pid)] / sum(load.answers.values())
        assert share < 0.05


async def test_one_that_fails_fast_attracts_no_calls(services: Processes) -> None:
    start(services, {"PACED_FAILING": "1"}, {}, {})
    async with calling(services, "http") as caller:
        async with Load(caller.change, rate=RATE) as load:
            await load.answered_by(2)
            load.errors.clear()
            began = load.calls
            await asyncio.sleep(5)
        assert len(load.errors) < (load.calls - began) / 10


async def test_http_and_grpc_are_one_instance(any_services: Processes) -> None:
    service = any_services.start("echo_rpc:EchoRpc").ready()
    async with Mesh(any_services.registry) as mesh:
        (instance,) = (await mesh.instances("echo-rpc")).up
        assert instance.endpoints.keys() == {"http", "grpc"}
        assert str(instance.endpoints["grpc"]) == service.facts["grpc"]
        reply = await mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc").Say(echo_pb2.EchoRequest())
        answer = await mesh.http("echo-rpc").get("/who")
        assert reply.instance == str(answer.json()["pid"]) == str(service.pid)
