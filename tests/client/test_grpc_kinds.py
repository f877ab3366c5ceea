"""The four kinds of calls through a generated stub: what they offer is what grpc.aio's offer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import identity
from meshkit.discovery.balancing import Outcome
from meshkit.errors import CallTimeout
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
from tests.protos.echo_pb2 import EchoReply, EchoRequest


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with serving("echo-a") as running:
        yield running


@pytest.fixture
async def ours(server: Running) -> AsyncIterator[Callers]:
    async with calling(server.instance) as callers:
        yield callers


def say(text: str, count: int = 0) -> EchoRequest:
    return EchoRequest(text=text, count=count)


def three() -> Iterator[EchoRequest]:
    return iter([say("a"), say("b"), say("c")])


async def three_async() -> AsyncIterator[EchoRequest]:
    for each in three():
        await asyncio.sleep(0)
        yield each


async def test_unary_unary(ours: Callers) -> None:
    call: Any = ours.stub.Say(say("hello"))
    assert isinstance(call, grpc.aio.UnaryUnaryCall)
    assert await call == EchoReply(text="hello", instance="echo-a")
    assert await call == EchoReply(text="hello", instance="echo-a")  # as often as one likes
    assert await call.code() is grpc.StatusCode.OK
    assert await call.details() == ""
    assert (await call.trailing_metadata())[identity.INSTANCE] == "echo-a"
    assert list(await call.initial_metadata()) == []
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
    assert ours.outcomes == [("echo-a", Outcome.OK)]


async def test_unary_stream_by_iteration(ours: Callers) -> None:
    call = ours.stub.Repeat(say("x", 3))
    assert isinstance(call, grpc.aio.UnaryStreamCall)
    assert [reply.text async for reply in call] == ["x", "x", "x"]
    assert await call.code() is grpc.StatusCode.OK
    assert ours.outcomes == [("echo-a", Outcome.OK)]


async def test_unary_stream_by_reading(ours: Callers) -> None:
    call = ours.stub.Repeat(say("x", 2))
    assert (await call.read()).text == "x"
    assert not call.done()
    assert (await call.read()).text == "x"
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF
    assert call.done()


async def test_an_iteration_can_be_continued(ours: Callers) -> None:
    call = ours.stub.Repeat(say("x", 3))
    async for _ in call:
        break
    assert [reply.text async for reply in call] == ["x", "x"]


@pytest.mark.parametrize("messages", [three, three_async])
async def test_stream_unary_by_iteration(ours: Callers, messages: Any) -> None:
    call = ours.stub.Join(messages())
    assert isinstance(call, grpc.aio.StreamUnaryCall)
    assert (await call).text == "a+b+c"


async def test_stream_unary_by_writing(ours: Callers) -> None:
    call = ours.stub.Join()
    for message in three():
        await call.write(message)
    await call.done_writing()
    await call.done_writing()
    assert (await call).text == "a+b+c"
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(say("too late"))


@pytest.mark.parametrize("messages", [three, three_async])
async def test_stream_stream_by_iteration(ours: Callers, messages: Any) -> None:
    call = ours.stub.Chat(messages())
    assert isinstance(call, grpc.aio.StreamStreamCall)
    assert [reply.text async for reply in call] == ["a", "b", "c"]


async def test_stream_stream_by_turns(ours: Callers) -> None:
    call = ours.stub.Chat()
    await call.wait_for_connection()
    for message in three():
        await call.write(message)
        assert (await call.read()).text == message.text
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_messages_are_not_taken_from_the_caller_before_there_is_a_connection() -> None:
    taken = 0

    def messages() -> Iterator[EchoRequest]:
        nonlocal taken
        for message in three():
            taken += 1
            yield message

    async with calling() as ours:
        call = ours.stub.Join(messages(), wait_for_ready=True)
        await asyncio.sleep(0.2)
        assert (taken, call.done()) == (0, False)
        async with serving("echo-a") as running:
            await ours.registry.register(running.instance)
            assert (await call).text == "a+b+c"
    assert taken == 3


async def test_a_broken_iterator_cancels_the_call_as_in_grpc(ours: Callers) -> None:
    def broken() -> Iterator[EchoRequest]:
        yield say("a")
        raise KeyError("broken")

    call = ours.stub.Join(broken())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert ours.outcomes == [("echo-a", Outcome.CANCELLED)]


async def test_a_call_begins_without_being_awaited(ours: Callers, server: Running) -> None:
    ended = asyncio.Event()
    call = ours.stub.Say(say("unattended"))
    call.add_done_callback(lambda each: ended.set() if each is call else None)
    await asyncio.wait_for(ended.wait(), 10)
    assert server.echo.texts == ["unattended"]
    assert call.done()
    after = asyncio.Event()
    call.add_done_callback(lambda _: after.set())
    await asyncio.wait_for(after.wait(), 10)
    assert (await call).text == "unattended"


@pytest.mark.parametrize("kind", ["Say", "Repeat", "Join", "Chat"])
async def test_what_the_handler_says_reaches_the_caller_as_it_is(ours: Callers, kind: str) -> None:
    request = say("abort NOT_FOUND")
    streamed = kind in ("Join", "Chat")
    call = getattr(ours.stub, kind)(iter([request]) if streamed else request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if kind in ("Say", "Join") else call.read())
    assert type(caught.value) is grpc.aio.AioRpcError
    assert caught.value.code() is await call.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == await call.details() == "the handler's own words"
    assert ours.outcomes == [("echo-a", Outcome.OK)]
    assert (ours.channel.stats.calls, ours.channel.stats.failed) == (1, 0)


async def test_writing_to_a_call_that_failed_raises_its_error(ours: Callers) -> None:
    call = ours.stub.Chat()
    await call.write(say("abort NOT_FOUND"))
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError, match="the handler's own words"):
        await call.write(say("more"))


async def test_metadata_of_the_caller_goes_along(ours: Callers, server: Running) -> None:
    forwarded = grpc.aio.Metadata(
        ("x-a", "1"), (identity.TARGET, "somebody-else"), ("x-b-bin", b"2")
    )
    await ours.stub.Say(say("1"), metadata=forwarded)
    await ours.stub.Say(say("2"), metadata=(("x-a", "1"), ("x-a", "2")))
    await ours.stub.Say(say("3"))
    sent = [[pair for pair in pairs if pair[0].startswith("x-")] for pairs in server.echo.metadata]
    target = (identity.TARGET, "echo-a")
    assert sent[0] == [("x-a", "1"), ("x-b-bin", b"2"), target]
    assert sent[1] == [("x-a", "1"), ("x-a", "2"), target]
    assert sent[2] == [target]
    assert len(forwarded) == 3


async def test_who_is_not_ours_is_not_told_that_it_is_meant() -> None:
    async with plain_serving("echo-a") as running, calling(running.instance) as ours:
        assert (await ours.stub.Say(say("x"))).text == "x"
        assert identity.TARGET not in dict(running.echo.metadata[0])


async def test_compression_is_passed_on(server: Running) -> None:
    async with (
        relay(server.instance.endpoints["grpc"]) as (endpoint, sent),
        calling(describe("echo-a", endpoint)) as ours,
    ):
        await ours.stub.Say(say("x" * 100_000), compression=grpc.Compression.Gzip)
        assert sum(sent) < 10_000
        await ours.stub.Say(say("x" * 100_000))
        assert sum(sent) > 100_000
    assert [len(text) for text in server.echo.texts] == [100_000, 100_000]


async def test_credentials_are_passed_on_and_need_tls_as_in_grpc(ours: Callers) -> None:
    with pytest.raises(grpc.aio.UsageError, match="secure"):
        ours.stub.Say(say("x"), credentials=grpc.access_token_call_credentials("secret"))
    assert ours.outcomes == [("echo-a", Outcome.CANCELLED)]


async def test_the_deadline_is_the_callers_or_the_channels(server: Running) -> None:
    async with calling(server.instance, timeout=40.0) as ours:
        for timeout in (None, 20.0, math.inf):
            call = ours.stub.Say(say("x"), timeout=timeout)
            left = call.time_remaining()
            await call
            if timeout is math.inf:
                assert left is None
            else:
                assert (timeout or 40.0) - 10 < left <= (timeout or 40.0)
    default, given, none = server.echo.time_remaining
    assert 30 < default <= 41
    assert 10 < given <= 21
    assert none is None or none > 1e6


@pytest.mark.parametrize(
    ("kind", "words"),
    [("Say", "no answer within 0.2 s"), ("Repeat", "not finished within 0.2 s")],
)
async def test_a_call_that_is_late(ours: Callers, server: Running, kind: str, words: str) -> None:
    call = getattr(ours.stub, kind)(say("sleep 30"), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await (call if kind == "Say" else call.read())
    assert isinstance(caught.value, CallTimeout)
    assert caught.value.code() is await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert call.time_remaining() == 0
    assert "\n" not in str(caught.value)
    assert ours.outcomes == [("echo-a", Outcome.TIMEOUT)]
    assert ours.channel.stats.failed == 1


async def test_a_call_without_time_is_not_sent(ours: Callers, server: Running) -> None:
    with pytest.raises(CallTimeout, match="nothing was sent"):
        await ours.stub.Say(say("x"), timeout=0)
    assert server.echo.texts == []


@pytest.mark.parametrize("kind", ["Say", "Repeat", "Join", "Chat"])
async def test_cancelling_the_caller_cancels_the_call(
    ours: Callers, server: Running, kind: str
) -> None:
    request = say("sleep 30")
    call = getattr(ours.stub, kind)(iter([request]) if kind in ("Join", "Chat") else request)
    task = asyncio.ensure_future(call if kind in ("Say", "Join") else call.read())
    while not server.echo.texts:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED
    assert ours.outcomes == [("echo-a", Outcome.CANCELLED)]
    async with asyncio.timeout(10):
        while not server.echo.cancelled:
            await asyncio.sleep(0.01)


async def test_cancelling_the_call_raises_in_whoever_awaits_it(ours: Callers) -> None:
    call = ours.stub.Say(say("sleep 30"))
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0.1)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (call.cancel(), call.done(), call.cancelled()) == (False, True, True)
    assert ours.outcomes == [("echo-a", Outcome.CANCELLED)]


async def test_waiting_for_somebody_to_call_can_be_cancelled() -> None:
    async with calling() as ours:
        call = ours.stub.Say(say("x"), wait_for_ready=True)
        await asyncio.sleep(0.1)
        assert not call.done()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED
        task = asyncio.ensure_future(second := ours.stub.Say(say("x"), wait_for_ready=True))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert second.cancelled()
        async with serving("echo-a") as running:
            await ours.registry.register(running.instance)
            await asyncio.sleep(1.5)  # longer than the pauses between two looks
            assert (running.echo.texts, ours.outcomes) == ([], [])


async def test_a_stub_per_call_is_fine(ours: Callers) -> None:
    for _ in range(3):
        assert (await new_stub(ours.channel).Say(say("x"))).text == "x"


async def test_a_method_without_a_stub(ours: Callers) -> None:
    method: Any = ours.channel.unary_unary("/meshkit.tests.Echo/Say")
    assert isinstance(method, grpc.aio.UnaryUnaryMultiCallable)
    assert b"raw" in await method(say("raw").SerializeToString())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ours.channel.unary_unary("/meshkit.tests.Echo/Nope")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert ours.outcomes[-1] == ("echo-a", Outcome.OK)
