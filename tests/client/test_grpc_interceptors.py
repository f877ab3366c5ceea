"""gRPC's own client interceptors on a channel by name: all four kinds, once per call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import Mesh
from meshkit.errors import ConfigError
from tests.client.grpc_servers import Callers, Running, calling, describe, new_stub, serving
from tests.client.http_servers import refusing
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

KINDS = ("Say", "Repeat", "Join", "Chat")


def say(text: str) -> EchoRequest:
    return EchoRequest(text=text)


class Signing(
    grpc.aio.UnaryUnaryClientInterceptor,
    grpc.aio.UnaryStreamClientInterceptor,
    grpc.aio.StreamUnaryClientInterceptor,
    grpc.aio.StreamStreamClientInterceptor,
):
    """Adds metadata to calls of all kinds, as gRPC's documentation shows it."""

    def __init__(self, name: str = "signed") -> None:
        self.name = name
        self.seen: list[Any] = []

    async def _sign(self, continuation: Any, details: Any, request: Any) -> Any:
        self.seen.append(details.method)
        metadata = details.metadata or grpc.aio.Metadata()
        metadata.add("x-signed", self.name)
        return await continuation(details._replace(metadata=metadata), request)

    intercept_unary_unary = _sign  # type: ignore[assignment]
    intercept_unary_stream = _sign  # type: ignore[assignment]
    intercept_stream_unary = _sign  # type: ignore[assignment]
    intercept_stream_stream = _sign  # type: ignore[assignment]


class Unary(grpc.aio.UnaryUnaryClientInterceptor):
    """Does what its function does."""

    def __init__(self, function: Any) -> None:
        self.intercept = function

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self.intercept(continuation, details, request)


class Streaming(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, function: Any) -> None:
        self.intercept = function

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await self.intercept(continuation, details, request)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with serving("echo-a") as running:
        yield running


async def answers(ours: Callers, kind: str, *texts: str) -> list[str]:
    """Call one of the four kinds; return the texts of its answers."""
    method, requests = getattr(ours.stub, kind), [say(text) for text in texts]
    if kind == "Say":
        return [(await method(requests[0])).text]
    if kind == "Repeat":
        return [reply.text async for reply in method(requests[0])]
    if kind == "Join":
        return [(await method(iter(requests))).text]
    return [reply.text async for reply in method(iter(requests))]


def signed(running: Running) -> list[str]:
    return [str(value) for key, value in running.echo.metadata[-1] if key == "x-signed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_passes_through(server: Running, kind: str) -> None:
    signing = Signing()
    async with calling(server.instance, interceptors=[signing]) as ours:
        assert await answers(ours, kind, "x") == ["x"]
    assert signed(server) == ["signed"]
    assert signing.seen == [f"/meshkit.tests.Echo/{kind}".encode()]


async def test_the_first_one_is_the_outermost(server: Running) -> None:
    async with calling(server.instance, interceptors=[Signing("one"), Signing("two")]) as ours:
        await ours.stub.Say(say("x"))
    assert signed(server) == ["one", "two"]


@pytest.mark.parametrize("kind", KINDS)
async def test_they_see_a_call_once_however_many_instances_it_takes(
    server: Running, kind: str
) -> None:
    signing = Signing()
    with refusing() as address:
        gone = describe("echo-0", address)
        async with calling(gone, server.instance, interceptors=[signing]) as ours:
            assert await answers(ours, kind, "x") == ["x"]
            assert ours.channel.stats.retried == 1
    assert len(signing.seen) == 1


@pytest.mark.parametrize("kind", ["Join", "Chat"])
async def test_messages_that_are_written(server: Running, kind: str) -> None:
    async with calling(server.instance, interceptors=[Signing()]) as ours:
        call = getattr(ours.stub, kind)()
        replies = []
        for text in ("x", "y", "z"):
            await call.write(say(text))
            if kind == "Chat":
                replies.append((await call.read()).text)
        await call.done_writing()
        await call.done_writing()
        if kind == "Chat":
            assert await call.read() is grpc.aio.EOF
            assert replies == ["x", "y", "z"]
        else:
            assert (await call).text == "x+y+z"
        assert await call.code() is grpc.StatusCode.OK
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(say("late"))


async def test_writing_to_a_call_that_failed_raises_its_error(server: Running) -> None:
    async with calling(server.instance, interceptors=[Signing()]) as ours:
        call = ours.stub.Chat()
        await call.write(say("abort NOT_FOUND"))
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.write(say("x"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_call_made_with_an_iterator_can_not_be_written_to(server: Running) -> None:
    async with calling(server.instance, interceptors=[Signing()]) as ours:
        call = ours.stub.Join(iter([say("x")]))
        with pytest.raises(grpc.aio.UsageError, match="iterator"):
            await call.write(say("y"))
        assert (await call).text == "x"


async def test_an_answer_that_an_interceptor_makes_up(server: Running) -> None:
    async def cached(_continuation: Any, _details: Any, request: Any) -> EchoReply:
        return EchoReply(text=request.text, instance="cache")

    async with calling(server.instance, interceptors=[Unary(cached)]) as ours:
        call = ours.stub.Say(say("x"))
        assert (await call).instance == "cache"
        assert await call.code() is grpc.StatusCode.OK
        assert await call.details() == ""
        assert call.done()
        assert not call.cancel()
    assert server.echo.texts == []


async def test_a_stream_that_an_interceptor_makes_up(server: Running) -> None:
    async def louder(continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)

        async def messages() -> AsyncIterator[EchoReply]:
            async for reply in call:
                yield EchoReply(text=reply.text.upper())

        return messages()

    async with calling(server.instance, interceptors=[Streaming(louder)]) as ours:
        call = ours.stub.Repeat(EchoRequest(text="x", count=2))
        assert (await call.read()).text == "X"
        assert [reply.text async for reply in call] == ["X"]
        assert await call.read() is grpc.aio.EOF


async def test_an_interceptor_may_call_twice(server: Running) -> None:
    async def patient(continuation: Any, details: Any, request: Any) -> Any:
        call = await continuation(details, request)
        if await call.code() is grpc.StatusCode.NOT_FOUND:
            return await continuation(details, say("second"))
        return call

    async with calling(server.instance, interceptors=[Unary(patient)]) as ours:
        assert (await ours.stub.Say(say("abort NOT_FOUND"))).text == "second"


async def test_an_interceptor_may_change_the_method_and_the_time(server: Running) -> None:
    async def elsewhere(continuation: Any, details: Any, request: Any) -> Any:
        changed = details._replace(method=b"/meshkit.tests.Echo/Look", timeout=1.0)
        return await continuation(changed, request)

    async with calling(server.instance, interceptors=[Unary(elsewhere)]) as ours:
        await ours.stub.Say(say("x"))
    assert 0 < server.echo.time_remaining[0] < 2.0  # the channel's own are 10 s


async def test_what_an_interceptor_raises_reaches_the_caller(server: Running) -> None:
    async def denied(_continuation: Any, _details: Any, _request: Any) -> Any:
        empty = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAUTHENTICATED, empty, empty, "no key")

    async with calling(server.instance, interceptors=[Unary(denied)]) as ours:
        call = ours.stub.Say(say("x"))
        with pytest.raises(grpc.aio.AioRpcError, match="no key"):
            await call
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await call.details() == "no key"
        assert call.done()
        ours.stub.Say(say("nobody waits for this one"))
        await asyncio.sleep(0.05)


async def test_the_servers_error_reaches_the_caller(server: Running) -> None:
    async with calling(server.instance, interceptors=[Signing()]) as ours:
        call = ours.stub.Say(say("abort NOT_FOUND"))
        with pytest.raises(grpc.aio.AioRpcError, match="the handler's own words"):
            await call
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        trailing = dict(iter(await call.trailing_metadata()))
        assert trailing["x-meshkit-instance"] == "echo-a"


async def test_callbacks_and_connections(server: Running) -> None:
    done: list[Any] = []
    async with calling(server.instance, interceptors=[Signing()]) as ours:
        call = ours.stub.Say(say("x"))
        call.add_done_callback(done.append)
        assert not call.done()
        await call.wait_for_connection()
        await call
        async with asyncio.timeout(15):
            while not done:
                await asyncio.sleep(0.01)
        assert done == [call]
        assert call.time_remaining() is not None


@pytest.mark.parametrize("held", ["by the interceptor", "by the server"])
async def test_whoever_stops_waiting_gives_the_call_up(server: Running, held: str) -> None:
    began = asyncio.Event()
    given_up: list[str] = []

    async def slow(continuation: Any, details: Any, request: Any) -> Any:
        began.set()
        try:
            await asyncio.sleep(60 if held == "by the interceptor" else 0)
        except asyncio.CancelledError:
            given_up.append(held)
            raise
        return await continuation(details, request)

    async with calling(server.instance, interceptors=[Unary(slow)]) as ours:
        call = ours.stub.Say(say("sleep 60"))
        waiting = asyncio.ensure_future(call)
        await began.wait()
        if held == "by the server":
            async with asyncio.timeout(15):
                while not server.echo.texts:
                    await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(15):
            while not (given_up or server.echo.cancelled):
                await asyncio.sleep(0.01)
        assert call.cancelled()


async def test_cancelling_the_call(server: Running) -> None:
    async with calling(server.instance, interceptors=[Signing()]) as ours:
        call = ours.stub.Say(say("sleep 60"))
        await asyncio.sleep(0.1)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()


async def test_what_is_no_interceptor_is_refused_by_name(server: Running) -> None:
    with pytest.raises(ConfigError, match=r"echo: .*Echo.* is no client interceptor"):
        async with calling(server.instance, interceptors=[server.echo]):  # type: ignore[list-item]
            pass


async def test_a_mesh_takes_them_too(server: Running) -> None:
    signing, other = Signing("one"), Signing("two")
    async with calling(server.instance) as ours, Mesh(ours.registry) as mesh:
        first = mesh.grpc(echo_pb2_grpc.EchoStub, "echo", interceptors=[signing])
        again = mesh.channel("echo", interceptors=[signing])
        assert again is mesh.channel("echo", interceptors=[signing])
        assert again is not mesh.channel("echo", interceptors=[other])
        await first.Say(say("x"))
        assert signed(server) == ["one"]
        await new_stub(mesh.channel("echo")).Say(say("x"))
        assert signed(server) == []
        assert len(server.echo.peers) == 1  # one connection all the same
