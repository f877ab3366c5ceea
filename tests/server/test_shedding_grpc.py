"""Shedding over gRPC: what is refused and how, what counts and what never does."""

# ruff: noqa: N802 - methods are named as in the proto

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit import MeshService, Runtime
from meshkit.identity import INSTANCE, SHED
from meshkit.propagation import DEADLINE
from meshkit.server.shedding.grpc import arrival
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually

REGISTRY = "memory://shedding-grpc"


class Desk(MeshService, echo_pb2_grpc.EchoServicer):
    name = "desk"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = 0

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        if request.text == "bug":
            raise RuntimeError("a bug")
        if request.text == "wait":
            self.waiting += 1
            await self.gate.wait()
        if request.text == "busy":
            time.sleep(0.02)
        return EchoReply(text=request.text)

    async def Repeat(self, request: EchoRequest, context: Any) -> AsyncIterator[EchoReply]:
        yield EchoReply(text="first")
        await self.gate.wait()
        yield EchoReply(text="last")

    async def Join(self, requests: AsyncIterator[EchoRequest], context: Any) -> EchoReply:
        texts = [request.text async for request in requests]
        return EchoReply(text=" ".join(texts))

    def Look(self, request: EchoRequest, context: Any) -> EchoReply:
        return EchoReply(text="from a thread")


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def runtime(desk: Desk) -> AsyncIterator[Runtime]:
    async with Runtime(desk, registry=REGISTRY, max_concurrency=1, drain_delay=0) as running:
        yield running


@pytest.fixture
async def channel(runtime: Runtime) -> AsyncIterator[grpc.aio.Channel]:
    assert runtime.grpc_target
    async with grpc.aio.insecure_channel(runtime.grpc_target) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]


@pytest.fixture
async def full(desk: Desk, stub: Any) -> AsyncIterator[None]:
    """One call is under way, the only one that may be."""
    call = stub.Say(EchoRequest(text="wait"), timeout=20)

    async def waits() -> bool:
        return desk.waiting == 1

    await aeventually(waits)
    yield
    desk.gate.set()
    await call


async def texts() -> AsyncIterator[EchoRequest]:
    yield EchoRequest(text="one")


@pytest.mark.parametrize("method", ["Say", "Look", "Repeat", "Join"])
async def test_a_call_too_many_is_refused_so_that_callers_know_it_was_not_handled(
    full: None, stub: Any, runtime: Runtime, desk: Desk, method: str
) -> None:
    argument = texts() if method == "Join" else EchoRequest(text="wait")
    call = getattr(stub, method)(argument, timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if method == "Repeat" else call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details().startswith("overloaded")  # type: ignore[union-attr]
    trailing = dict(caught.value.trailing_metadata())
    assert runtime.instance
    assert trailing[SHED] == trailing[INSTANCE] == runtime.instance.id
    assert trailing["grpc-retry-pushback-ms"] == "1000"
    assert desk.waiting == 1


async def test_health_is_answered_however_full_it_is(full: None, channel: grpc.aio.Channel) -> None:
    health: Any = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_what_fails_counts_no_longer(stub: Any) -> None:
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Say(EchoRequest(text="bug"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNKNOWN


async def test_a_stream_counts_until_it_begins(stub: Any, desk: Desk) -> None:
    stream = stub.Repeat(EchoRequest(), timeout=20)
    assert (await stream.read()).text == "first"
    assert (await stub.Say(EchoRequest(text="now"), timeout=10)).text == "now"
    desk.gate.set()
    assert (await stream.read()).text == "last"


async def test_a_caller_who_leaves_frees_its_place(stub: Any, desk: Desk) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Say(EchoRequest(text="wait"), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def free() -> bool:
        try:
            await stub.Say(EchoRequest(text="now"), timeout=10)
        except grpc.aio.AioRpcError:
            return False
        return True

    await aeventually(free)


async def test_the_answers_of_a_free_service_are_its_own(stub: Any) -> None:
    assert (await stub.Look(EchoRequest(), timeout=10)).text == "from a thread"
    assert (await stub.Join(texts(), timeout=10)).text == "one"


async def test_a_message_larger_than_the_limit_is_refused_without_being_shed(desk: Desk) -> None:
    async with Runtime(desk, registry=REGISTRY, max_body=10_000, drain_delay=0) as runtime:
        assert runtime.grpc_target
        async with grpc.aio.insecure_channel(runtime.grpc_target) as channel:
            stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
            await stub.Say(EchoRequest(text="x" * 9000), timeout=10)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Say(EchoRequest(text="x" * 11_000), timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert SHED not in dict(caught.value.trailing_metadata())


async def test_time_in_the_queue_of_grpc_itself_is_known_from_the_deadline(desk: Desk) -> None:
    """A handler that never waits has one call under way; the others wait in gRPC's core."""
    async with Runtime(desk, registry=REGISTRY, shedding="auto", drain_delay=0) as runtime:
        assert runtime.grpc_target
        async with grpc.aio.insecure_channel(runtime.grpc_target) as channel:
            stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]

            async def say() -> str:
                call = stub.Say(
                    EchoRequest(text="busy"), timeout=10, metadata=((DEADLINE, "10000"),)
                )
                code = await call.code()
                return str(code.name)

            for _ in range(30):
                assert await say() == "OK"
            codes = await asyncio.gather(*(say() for _ in range(300)))
    assert codes.count("RESOURCE_EXHAUSTED") > 100
    assert codes.count("OK") >= 10


@pytest.mark.parametrize("text", ["", "-5", "soon", "9" * 30, "1.5"])
async def test_a_malformed_deadline_breaks_nothing(stub: Any, text: str) -> None:
    await stub.Say(EchoRequest(), timeout=10, metadata=((DEADLINE, text),))


@pytest.mark.parametrize(("told", "waited"), [("10250", 0.25), ("99999999", 0.0), ("5000", 0.0)])
def test_a_strangers_deadline_is_no_time_that_its_calls_have_waited(
    told: str, waited: float
) -> None:
    """As of a gateway that passes on what its own caller wrote."""
    call = SimpleNamespace(incoming=((DEADLINE, told),), remaining=10.0)
    before = time.perf_counter()
    came = arrival(SimpleNamespace(call=call))
    assert before - waited <= came <= time.perf_counter() - waited
