"""gRPC on an event loop of its own: what HTTP takes of the other one does not keep it waiting."""

# ruff: noqa: N802 - methods are named as in the proto

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit import (
    BindError,
    Mesh,
    MeshService,
    Runtime,
    StartError,
    get,
    health_check,
    http_client,
)
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually

NAME = "meshkit-grpc"  # of the thread


class Both(MeshService, echo_pb2_grpc.EchoServicer):
    name = "both"
    itself = http_client("both", timeout=10)

    def __init__(self) -> None:
        self.broken = False
        self.ended: list[str] = []

    @health_check
    async def database(self) -> None:
        if self.broken:
            raise ConnectionError("refused")

    @get("/where")
    async def where(self) -> str:
        return threading.current_thread().name

    @get("/block")
    async def block(self, seconds: float) -> None:
        time.sleep(seconds)

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        verb, _, argument = request.text.partition(" ")
        if verb == "sleep":
            try:
                await asyncio.sleep(float(argument))
            except asyncio.CancelledError:
                self.ended.append("cancelled")
                raise
            self.ended.append("finished")
        elif verb == "block":
            time.sleep(float(argument))
        elif verb == "http":
            answer = await self.itself.get("/where")
            return EchoReply(text=answer.json(), instance=threading.current_thread().name)
        return EchoReply(text=request.text, instance=threading.current_thread().name)


def running(service: MeshService, **settings: Any) -> Runtime:
    return Runtime(service, registry="local://", grpc_thread=True, **settings)


def stub(runtime: Runtime) -> Any:
    assert runtime.grpc_target
    channel = grpc.aio.insecure_channel(runtime.grpc_target)
    return echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == NAME]


async def test_handlers_run_in_their_own_thread_with_clients_of_their_own() -> None:
    service = Both()
    interval = sys.getswitchinterval()
    async with running(service) as runtime, Mesh("local://") as mesh:
        assert threads() == [NAME]
        assert sys.getswitchinterval() < interval
        assert (await mesh.http("both").get("/where")).json() == "MainThread"
        ours = mesh.grpc(echo_pb2_grpc.EchoStub, "both")
        reply = await ours.Say(EchoRequest(text="http"), timeout=20)
        assert (reply.text, reply.instance) == ("MainThread", NAME)
        assert runtime.instance
        assert runtime.instance.endpoints.keys() == {"http", "grpc"}
        # Here we are in the other one.
        assert (await service.itself.get("/where")).json() == "MainThread"
    assert threads() == []
    assert sys.getswitchinterval() == interval


async def test_grpc_answers_while_http_blocks_its_loop() -> None:
    async with running(Both()) as runtime:

        def call() -> float:
            assert runtime.grpc_target
            with grpc.insecure_channel(runtime.grpc_target) as channel:
                ours = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
                ours.Say(EchoRequest(text="x"), timeout=20)
                time.sleep(0.2)  # now the other loop blocks
                ours.Say(EchoRequest(text="x"), timeout=20)
                return time.monotonic()

        calling = asyncio.create_task(asyncio.to_thread(call))
        await asyncio.sleep(0.15)
        time.sleep(4)  # what a handler of HTTP's does that should not
        unblocked = time.monotonic()
        assert await calling < unblocked


async def test_health_follows_readiness() -> None:
    service = Both()
    async with running(service, check_interval=0.1) as runtime:
        assert runtime.grpc_target
        async with grpc.aio.insecure_channel(runtime.grpc_target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)

            async def status() -> int:
                answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                return int(answer.status)

            assert await status() == health_pb2.HealthCheckResponse.SERVING
            service.broken = True

            async def is_down() -> bool:
                return await status() == health_pb2.HealthCheckResponse.NOT_SERVING

            await aeventually(is_down)


@pytest.mark.parametrize(("limit", "end"), [(20.0, "finished"), (3.0, "cancelled")])
async def test_calls_in_flight_may_end_within_the_limit(*, limit: float, end: str) -> None:
    service = Both()
    runtime = running(service, drain_delay=0.1, shutdown_timeout=limit)
    async with runtime:
        call = asyncio.ensure_future(stub(runtime).Say(EchoRequest(text="sleep 2")))
        await asyncio.sleep(0.3)
        await runtime.stop()
        await asyncio.gather(call, return_exceptions=True)
    assert service.ended == [end]
    assert threads() == []


async def test_a_busy_port_is_refused_and_leaves_no_thread() -> None:
    async with running(Both()) as first:
        assert first.grpc_target
        port = int(first.grpc_target.rpartition(":")[2])
        with pytest.raises(BindError, match="--grpc-port"):
            await running(Both(), grpc_port=port).start()
        assert threads() == [NAME]


async def test_a_start_that_fails_leaves_no_thread() -> None:
    class Failing(Both):
        name = "failing"

        async def on_start(self) -> None:
            raise ConnectionError("no database")

    with pytest.raises(StartError, match="no database"):
        await running(Failing()).start()
    assert threads() == []


async def test_a_stuck_loop_of_grpcs_is_registered_as_down() -> None:
    async with running(Both(), loop_lag_limit=0.5) as runtime, Mesh("local://") as mesh:

        async def up() -> int:
            return len((await mesh.instances("both")).up)

        async def is_down() -> bool:
            return await up() == 0

        async def is_up() -> bool:
            return await up() == 1

        call = asyncio.ensure_future(stub(runtime).Say(EchoRequest(text="block 3")))
        await aeventually(is_down)
        await call
        await aeventually(is_up)
