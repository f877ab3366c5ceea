"""SIGTERM while all sorts of answers are under way, and keep-alive connections are busy."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import grpc
import grpc.aio
import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from meshkit.identity import DRAINING
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoRequest
from tests.support.processes import Processes, ServiceProcess
from tests.support.waiting import aeventually

TICKS = 80  # 4 s


async def call_until_told(client: httpx2.AsyncClient, url: str) -> int:
    """Call on kept-alive connections until an answer says that the instance leaves."""
    calls = 0
    while True:
        answer = await client.get(url + "/now")
        assert answer.json() == "now"
        calls += 1
        if DRAINING in answer.headers:
            assert answer.headers["connection"] == "close"
            return calls


async def ticks(client: httpx2.AsyncClient, url: str) -> int:
    count = 0
    async with client.stream("GET", f"{url}/ticks/{TICKS}") as answer:
        async for line in answer.aiter_lines():
            count += line == "tick"
    return count


async def talk(url: str) -> int:
    """Talk until the other side ends it; return the close code."""
    async with connect(url.replace("http", "ws") + "/talk") as socket:
        try:
            while True:
                await socket.send("hello")
                assert await socket.recv() == "hello"
                await asyncio.sleep(0.05)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0


async def repeat(stub: Any) -> int:
    replies = stub.Repeat(EchoRequest(text="x", count=TICKS), timeout=60)
    return len([reply async for reply in replies])


async def test_what_is_under_way_ends_well_when_the_service_is_told_to_stop(
    services: Processes,
) -> None:
    service = services.start("streams:Streams").ready()
    async with (
        httpx2.AsyncClient(timeout=60) as client,
        grpc.aio.insecure_channel(str(service.facts["grpc"])) as channel,
    ):
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(call_until_told(client, service.url)) for _ in range(8)]
            streams = [group.create_task(ticks(client, service.url)) for _ in range(3)]
            calls = [group.create_task(repeat(stub)) for _ in range(3)]
            talker = group.create_task(talk(service.url))
            await asyncio.sleep(1)
            service.send(signal.SIGTERM)
    assert all(caller.result() > 1 for caller in callers)
    assert [stream.result() for stream in streams] == [TICKS] * 3
    assert [call.result() for call in calls] == [TICKS] * 3
    assert talker.result() == 1012  # service restart
    assert await ended(service) == 0


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_a_stream_without_end_does_not_hold_up_the_stop_beyond_its_limit(
    services: Processes, transport: str
) -> None:
    service = services.start("streams:Streams", env={"MESHKIT_SHUTDOWN_TIMEOUT": "4"}).ready()
    async with (
        httpx2.AsyncClient(timeout=60) as client,
        grpc.aio.insecure_channel(str(service.facts["grpc"])) as channel,
    ):
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        reading = asyncio.create_task(
            endless(client, service.url) if transport == "http" else endless_replies(stub)
        )
        await asyncio.sleep(0.5)
        service.send(signal.SIGTERM)
        assert await ended(service) == 0
        await reading
    assert "Traceback" not in service.output


async def endless(client: httpx2.AsyncClient, url: str) -> None:
    with contextlib.suppress(httpx2.TransportError):  # the end of it is missing, and it shows
        async with client.stream("GET", f"{url}/ticks/1000000") as answer:
            async for _ in answer.aiter_lines():
                pass
        pytest.fail("a stream that was cut looks complete")


async def endless_replies(stub: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in stub.Repeat(EchoRequest(text="x", count=1_000_000), timeout=60):
            pass
        pytest.fail("a stream that was cut looks complete")


async def ended(service: ServiceProcess) -> int:
    async def over() -> bool:
        return service.code is not None

    await aeventually(over, within=60)
    return service.wait()
