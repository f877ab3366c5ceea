"""The gRPC server of a running service: health, reflection, ports and the end of calls."""

# ruff: noqa: N802 - methods are named as in the proto

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from meshkit import BindError, MeshService, Runtime, get, health_check
from meshkit.server.grpc import GrpcServer
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually

REGISTRY = "memory://grpc-server"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "meshkit.tests.Echo"


class Echo(MeshService, echo_pb2_grpc.EchoServicer):
    name = "echo"

    def __init__(self) -> None:
        self.broken = False
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:
        if request.text == "slow":
            self.begun.set()
            try:
                await asyncio.sleep(1)
            finally:
                self.ended.set()
        return EchoReply(text=request.text)

    @health_check
    async def database(self) -> None:
        if self.broken:
            raise ConnectionError("refused")


class Both(Echo):
    @get("/ping")
    async def ping(self) -> str:
        return "pong"


def to(runtime: Runtime) -> grpc.aio.Channel:
    assert runtime.grpc_target
    return grpc.aio.insecure_channel(runtime.grpc_target)


async def status(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    return int(answer.status)


async def test_grpc_alone_serves_no_http() -> None:
    async with Runtime(Echo(), registry=REGISTRY) as runtime:
        assert runtime.http_url is None
        assert runtime.instance
        assert runtime.instance.endpoints.keys() == {"grpc"}


async def test_both_transports_are_one_instance() -> None:
    async with Runtime(Both(), registry=REGISTRY) as runtime, to(runtime) as channel:
        assert runtime.instance
        assert runtime.instance.endpoints.keys() == {"http", "grpc"}
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        say = stub.Say(EchoRequest(text="hi"), timeout=10)
        assert (await say).text == "hi"
        trailing = dict(iter(await say.trailing_metadata()))
        assert trailing["x-meshkit-instance"] == runtime.instance.id
        assert trailing["x-meshkit-service"] == "echo"


async def test_health_check_and_watch_follow_readiness() -> None:
    echo = Echo()
    runtime = Runtime(echo, registry=REGISTRY, check_interval=0.1)
    async with runtime, to(runtime) as channel:
        for name in ("", SERVICE):
            assert await status(channel, name) == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await status(channel, "no.such.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
        assert (await watch.read()).status == SERVING
        echo.broken = True
        assert (await watch.read()).status == NOT_SERVING
        assert await status(channel) == NOT_SERVING
        echo.broken = False
        assert (await watch.read()).status == SERVING
        assert await status(channel) == SERVING
        watch.cancel()


async def test_health_says_not_serving_while_it_starts_and_while_it_leaves() -> None:
    seen: list[int] = []

    class Slow(Echo):
        async def on_start(self) -> None:
            assert runtime._servers.grpc
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{runtime._servers.grpc.port}"
            ) as early:
                seen.append(await status(early))

    runtime = Runtime(Slow(), registry=REGISTRY, drain_delay=2)
    await runtime.start()
    async with to(runtime) as channel:
        seen.append(await status(channel))
        stopping = asyncio.create_task(runtime.stop())

        async def leaving() -> bool:
            return await status(channel) == NOT_SERVING

        await aeventually(leaving, within=5)
        assert not stopping.done()
        await stopping
    assert seen == [NOT_SERVING, SERVING]


async def reflected(runtime: Runtime) -> set[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with to(runtime) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        async for answer in stub.ServerReflectionInfo(iter([request]), timeout=10):
            return {each.name for each in answer.list_services_response.service}
    raise AssertionError("no answer")


async def test_reflection_is_for_development() -> None:
    async with Runtime(Echo(), registry=REGISTRY) as runtime:
        assert await reflected(runtime) == {
            SERVICE,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
    async with Runtime(Echo(), registry=REGISTRY, env="production") as runtime:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected(runtime)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_busy_port_is_refused_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError) as caught:
            GrpcServer("127.0.0.1", port)
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is already in use: "
        "stop the process that holds it, or let --grpc-port 0 choose a free one"
    )


async def test_two_servers_can_not_share_a_port() -> None:
    first = GrpcServer("127.0.0.1", 0)
    with pytest.raises(BindError, match=rf"^port {first.port} on 127.0.0.1 is already in use"):
        GrpcServer("127.0.0.1", first.port)
    await first.stop(grace=0)


async def test_a_port_of_ours_is_shared_with_nobody() -> None:
    """By default gRPC lets several servers listen on one port, and calls land on any of them."""
    ours, theirs = GrpcServer("127.0.0.1", 0), grpc.aio.server()
    with pytest.raises(RuntimeError):
        theirs.add_insecure_port(f"127.0.0.1:{ours.port}")
    await ours.stop(grace=0)
    await theirs.stop(0)


async def test_a_fixed_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    server = GrpcServer("127.0.0.1", port)
    assert server.port == port
    await server.stop(grace=0)


async def test_a_host_that_is_not_ours_is_refused() -> None:
    with pytest.raises(BindError, match=r"^192.0.2.1 is not an address of this machine"):
        GrpcServer("192.0.2.1", 4567)
    with pytest.raises(BindError, match=r"192.0.2.1"):
        GrpcServer("192.0.2.1", 0)


@pytest.mark.parametrize(("limit", "finished"), [(28.0, True), (2.2, False)])
async def test_calls_in_flight_may_end_within_the_limit(*, limit: float, finished: bool) -> None:
    echo = Echo()
    runtime = Runtime(echo, registry=REGISTRY, drain_delay=0, shutdown_timeout=limit)
    await runtime.start()
    async with to(runtime) as channel:
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Say(EchoRequest(text="slow"), timeout=10)
        await echo.begun.wait()
        await runtime.stop()
        assert (await call.code() is grpc.StatusCode.OK) is finished
    assert echo.ended.is_set()
