"""What an outgoing gRPC call takes along from the call being handled."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from meshkit import context
from meshkit.errors import CallTimeout
from meshkit.propagation import NAMES, REQUEST
from tests.client.grpc_servers import Callers, Running, calling, serving
from tests.protos.echo_pb2 import EchoRequest

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with serving("echo-a") as running:
        yield running


@pytest.fixture
async def ours(server: Running) -> AsyncIterator[Callers]:
    async with calling(server.instance) as callers:
        yield callers


def carried(metadata: list[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    pairs = [pair for pair in metadata if pair[0] in NAMES]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def requests() -> Iterator[EchoRequest]:
    return iter([EchoRequest(text="a")])


async def each_kind(stub: Any, **options: Any) -> None:
    await stub.Say(EchoRequest(text="a"), **options)
    async for _ in stub.Repeat(EchoRequest(text="a"), **options):
        pass
    await stub.Join(requests(), **options)
    async for _ in stub.Chat(requests(), **options):
        pass


async def test_outside_of_a_call_nothing_is_added(server: Running, ours: Callers) -> None:
    await each_kind(ours.stub)
    assert [carried(each) for each in server.echo.metadata] == [{}] * 4
    assert all(5 < left <= 11 for left in server.echo.time_remaining)


async def test_calls_of_each_kind_take_the_context_along(server: Running, ours: Callers) -> None:
    with context.use(request_id="job-7", traceparent=TRACEPARENT, baggage={"tenant": "acme"}):
        await each_kind(ours.stub, metadata=(("x-own", "1"),))
    expected = {REQUEST: "job-7", "traceparent": TRACEPARENT, "baggage": "tenant=acme"}
    assert [carried(each) for each in server.echo.metadata] == [expected] * 4
    assert all(("x-own", "1") in each for each in server.echo.metadata)


async def test_metadata_of_the_caller_wins(server: Running, ours: Callers) -> None:
    with context.use(request_id="job-7", traceparent=TRACEPARENT):
        await ours.stub.Say(EchoRequest(text="a"), metadata=((REQUEST, "mine"),))
    assert carried(server.echo.metadata[0]) == {REQUEST: "mine", "traceparent": TRACEPARENT}


async def test_the_deadline_shortens_what_a_call_may_take_and_never_lengthens_it(
    server: Running, ours: Callers
) -> None:
    with context.deadline_in(7):
        await ours.stub.Say(EchoRequest(text="a"))
        await ours.stub.Say(EchoRequest(text="a"), timeout=3)
    inherited, own = server.echo.time_remaining
    assert 3 < inherited < 7.5
    assert 0 < own < 3.5


async def test_a_call_ends_with_the_deadline_and_says_whose_it_was(ours: Callers) -> None:
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as late, context.deadline_in(0.25):
        await ours.stub.Say(EchoRequest(text="sleep 20"))
    assert time.monotonic() - began < 15
    assert isinstance(late.value, CallTimeout)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert str(late.value).startswith(
        "echo: /meshkit.tests.Echo/Say: no answer within the 0.25 s that were left to the call "
        "being handled: "
    )


async def test_a_call_with_nothing_left_fails_without_being_sent(
    server: Running, ours: Callers
) -> None:
    await ours.stub.Say(EchoRequest(text="a"))
    with context.deadline_in(-1):
        with pytest.raises(CallTimeout) as late:
            await ours.stub.Say(EchoRequest(text="a"))
        with pytest.raises(CallTimeout):
            async for _ in ours.stub.Repeat(EchoRequest(text="a")):
                pass
    assert str(late.value) == (
        "echo: /meshkit.tests.Echo/Say: not sent, as the deadline of the call being handled "
        "has passed"
    )
    assert server.echo.texts == ["a"]
    assert ours.channel.stats.failed == 2
