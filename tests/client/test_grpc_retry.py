"""When a call goes on to another instance: surely without effect, or idempotent, and not else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import identity
from meshkit.client.grpc.method import declares_idempotent
from meshkit.discovery.balancing import Outcome
from meshkit.errors import (
    CallTimeout,
    ConnectError,
    ConnectionLost,
    NoInstances,
    WrongInstance,
)
from meshkit.model import Endpoint, Instance
from tests.client.grpc_servers import (
    Callers,
    Running,
    bad_server,
    calling,
    describe,
    plain_serving,
    server_processes,
    serving,
)
from tests.client.http_servers import never_answer, refusing
from tests.protos.echo_pb2 import EchoReply, EchoRequest

KINDS = ["Say", "Repeat", "Join", "Chat"]


def say(text: str, count: int = 0) -> EchoRequest:
    return EchoRequest(text=text, count=count)


async def answer(ours: Callers, kind: str, text: str = "x", **options: Any) -> str:
    """Make a call of this kind; return who answered."""
    request: Any = iter([say(text)]) if kind in ("Join", "Chat") else say(text)
    call = getattr(ours.stub, kind)(request, **options)
    reply: EchoReply = await (call if kind not in ("Repeat", "Chat") else call.read())
    return reply.instance


def ids(ours: Callers) -> list[tuple[str, str]]:
    return [(name.removeprefix("echo-"), outcome.value) for name, outcome in ours.outcomes]


@pytest.fixture
async def second() -> AsyncIterator[Running]:
    async with serving("echo-b") as running:
        yield running


def closed_port() -> Instance:
    with refusing() as endpoint:
        return describe("echo-a", endpoint)


# Surely without effect: any method, any kind.


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_call_goes_on(second: Running, kind: str) -> None:
    async with calling(closed_port(), second.instance, attempts=1) as ours:
        assert await answer(ours, kind) == "echo-b"
        assert ids(ours)[0] == ("a", "refused")
        assert (ours.channel.stats.retried, ours.channel.stats.failed) == (1, 0)
        assert await answer(ours, kind) == "echo-b"
        assert ours.channel.stats.retried == 1  # nobody asks it again at once


async def test_a_refused_call_by_writing_goes_on(second: Running) -> None:
    async with calling(closed_port(), second.instance) as ours:
        call = ours.stub.Chat()
        await call.write(say("x"))
        assert (await call.read()).instance == "echo-b"
        await call.done_writing()


async def test_a_refused_call_goes_on_without_being_awaited(second: Running) -> None:
    async with calling(closed_port(), second.instance) as ours:
        ended = asyncio.Event()
        ours.stub.Say(say("unattended")).add_done_callback(lambda _: ended.set())
        await asyncio.wait_for(ended.wait(), 10)
    assert second.echo.texts == ["unattended"]


@pytest.mark.parametrize("kind", ["Say", "Repeat"])
async def test_metadata_comes_from_whoever_answers(second: Running, kind: str) -> None:
    async with calling(closed_port(), second.instance) as ours:
        call = getattr(ours.stub, kind)(say("greet"))
        await call.wait_for_connection()
        assert (await call.initial_metadata())["x-greeting"] == "echo-b"
        await (call if kind == "Say" else call.read())


@pytest.mark.parametrize("kind", KINDS)
async def test_when_all_refuse(kind: str) -> None:
    with refusing() as one, refusing() as two:
        async with calling(describe("echo-a", one), describe("echo-b", two)) as ours:
            with pytest.raises(NoInstances) as caught:
                await answer(ours, kind)
            assert isinstance(caught.value, grpc.aio.AioRpcError)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert isinstance(caught.value.__cause__, ConnectError)
            assert str(caught.value) == (
                f"echo: /meshkit.tests.Echo/{kind}: no instance left to try after 2 attempts: "
                f"echo-a ({one}) can't be reached (Connection refused); "
                f"echo-b ({two}) can't be reached (Connection refused)"
            )
            assert ids(ours) == [("a", "refused"), ("b", "refused")]
            assert (ours.channel.stats.calls, ours.channel.stats.failed) == (1, 1)


async def test_when_nobody_is_registered() -> None:
    async with calling() as ours:
        call = ours.stub.Say(say("x"))
        with pytest.raises(NoInstances, match=r"^echo: no instance is registered$"):
            await call
        assert call.done()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "echo: no instance is registered"
        assert list(await call.initial_metadata()) == list(await call.trailing_metadata()) == []


@pytest.mark.parametrize("kind", ["Say", "Repeat"])
async def test_a_call_to_a_reused_address_goes_on(second: Running, kind: str) -> None:
    async with serving("echo-x") as stranger:
        gone = describe("echo-a", stranger.instance.endpoints["grpc"])
        async with calling(gone, second.instance, attempts=1) as ours:
            assert await answer(ours, kind) == "echo-b"
            assert ids(ours)[0] == ("a", "wrong")
        assert stranger.echo.texts == []


async def test_messages_that_were_sent_to_a_reused_address_are_lost(second: Running) -> None:
    async with serving("echo-x") as stranger:
        gone = describe("echo-a", stranger.instance.endpoints["grpc"])
        async with calling(gone, second.instance) as ours:
            with pytest.raises(
                WrongInstance, match=r"for by echo-x; not repeated, as its messages"
            ):
                await answer(ours, "Join")
            assert await answer(ours, "Join") == "echo-b"  # the other one is set aside
        assert stranger.echo.texts == []


async def test_a_reading_caller_goes_on_from_a_reused_address(second: Running) -> None:
    async with serving("echo-x") as stranger:
        gone = describe("echo-a", stranger.instance.endpoints["grpc"])
        async with calling(gone, second.instance) as ours:
            call = ours.stub.Chat()
            reading = asyncio.ensure_future(call.read())
            while not ours.channel.stats.retried:
                await asyncio.sleep(0.01)
            await call.write(say("x"))
            assert (await reading).instance == "echo-b"


async def test_a_server_without_the_method_is_somebody_else(second: Running) -> None:
    other_service = grpc.method_handlers_generic_handler("somebody.Else", {})
    async with plain_serving("echo-x", other_service) as stranger:
        address = stranger.instance.endpoints["grpc"]
        async with calling(describe("echo-a", address), second.instance) as ours:
            assert await answer(ours, "Say") == "echo-b"
            assert ids(ours) == [("a", "wrong"), ("b", "ok")]
        async with calling(describe("echo-a", address, named=False), second.instance) as ours:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer(ours, "Say")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert ids(ours) == [("a", "ok")]


async def test_a_method_that_our_instance_lacks_is_an_answer(second: Running) -> None:
    async with calling(second.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer(ours, "Say", "abort UNIMPLEMENTED")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert ids(ours) == [("b", "ok")]


# Perhaps with an effect: idempotent methods only.


async def test_a_lost_connection(second: Running) -> None:
    with server_processes("echo-a") as [first]:
        async with calling(first.instance, second.instance) as ours:
            with pytest.raises(ConnectionLost) as caught:
                await answer(ours, "Say", "die")
            assert isinstance(caught.value, grpc.aio.AioRpcError)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            line = str(caught.value)
            assert "echo-a" in line
            assert "lost the connection" in line
            assert line.endswith("; not repeated, as it is not known to be idempotent")
            assert ids(ours) == [("a", "failed")]
    assert second.echo.texts == []


@pytest.mark.parametrize(
    ("kind", "idempotent"),
    [
        ("Look", []),
        ("Put", []),
        ("Say", ["Say"]),
        ("Say", ["Echo/Say"]),
        ("Say", ["/meshkit.tests.Echo/Say"]),
        ("Repeat", ["Repeat"]),
    ],
)
async def test_a_lost_connection_of_an_idempotent_call(
    second: Running, kind: str, idempotent: list[str]
) -> None:
    with server_processes("echo-a") as [first]:
        async with calling(first.instance, second.instance, idempotent=idempotent) as ours:
            assert await answer(ours, "Say") == "echo-a"
            waiting = asyncio.ensure_future(answer(ours, kind, "sleep 1"))
            await asyncio.sleep(0.3)
            first.end()
            assert await waiting == "echo-b"
            assert ids(ours)[1] == ("a", "failed")
            assert ours.channel.stats.retried == 1


async def test_unavailable_from_the_handler(second: Running) -> None:
    async with serving("echo-a") as first, calling(first.instance, second.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError, match="the handler's own words") as caught:
            await answer(ours, "Say", "abort UNAVAILABLE")
        assert type(caught.value) is grpc.aio.AioRpcError
        assert (len(first.echo.texts), len(second.echo.texts)) == (1, 0)
        with pytest.raises(grpc.aio.AioRpcError, match="the handler's own words") as caught:
            await answer(ours, "Look", "abort UNAVAILABLE")
        assert type(caught.value) is grpc.aio.AioRpcError
        # The third time after a pause, as nobody is left who was not asked.
        assert (len(first.echo.texts), len(second.echo.texts)) == (3, 1)
        assert ours.channel.stats.failed == 0


async def test_an_idempotent_call_reaches_only_so_many() -> None:
    async with (
        serving("echo-a") as one,
        serving("echo-b") as two,
        serving("echo-c") as three,
        calling(one.instance, two.instance, three.instance, attempts=2) as ours,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="the handler's own words"):
            await answer(ours, "Look", "abort UNAVAILABLE")
        reached = [len(each.echo.texts) for each in (one, two, three)]
    assert reached == [1, 1, 0]


@pytest.mark.parametrize("serve", [serving, plain_serving])
async def test_the_words_of_a_refusal_passed_on_by_a_handler_prove_nothing(
    second: Running, serve: Any
) -> None:
    words = "relay failed to connect to all addresses; last error: Connection refused"
    async with serve("echo-a") as first, calling(first.instance, second.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answer(ours, "Say", words)
        assert type(caught.value) is grpc.aio.AioRpcError
        assert ids(ours) == [("a", "failed")]
    assert second.echo.texts == []


def _impostor(name: str) -> grpc.GenericRpcHandler:
    """Serve the methods of echo, refuse nothing, and give another name."""

    async def one(request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(((identity.INSTANCE, name),))
        return EchoReply(text="impostor", instance=name).SerializeToString()

    async def many(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield await one(request, context)

    return grpc.method_handlers_generic_handler(
        "meshkit.tests.Echo",
        {
            "Say": grpc.unary_unary_rpc_method_handler(one),
            "Look": grpc.unary_unary_rpc_method_handler(one),
            "Repeat": grpc.unary_stream_rpc_method_handler(many),
        },
    )


async def test_a_good_answer_by_somebody_else(second: Running) -> None:
    async with plain_serving("echo-x", _impostor("echo-x")) as stranger:
        gone = describe("echo-a", stranger.instance.endpoints["grpc"])
        async with calling(gone, second.instance) as ours:
            call = ours.stub.Say(say("x"))
            with pytest.raises(WrongInstance, match="was answered for by echo-x; not repeated"):
                await call
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert ids(ours) == [("a", "wrong")]
        async with calling(gone, second.instance) as ours:
            assert await answer(ours, "Look") == "echo-b"
            assert ids(ours) == [("a", "wrong"), ("b", "ok")]
        async with calling(gone, second.instance) as ours:
            with pytest.raises(WrongInstance):
                [reply async for reply in ours.stub.Repeat(say("x"))]


async def test_a_stream_stays_where_its_first_message_came_from(second: Running) -> None:
    async with (
        serving("echo-a") as first,
        calling(first.instance, second.instance, idempotent=["Repeat"]) as ours,
    ):
        call = ours.stub.Repeat(say("break", 3))
        assert (await call.read()).instance == "echo-a"
        with pytest.raises(grpc.aio.AioRpcError, match="broken off"):
            await call.read()
        assert ids(ours) == [("a", "failed")]
    assert second.echo.texts == []


# Time, and waiting.


async def test_attempts_share_the_time_of_the_call(second: Running) -> None:
    async with (
        bad_server(never_answer) as silent,
        calling(describe("echo-a", silent), second.instance, timeout=20.0) as ours,
    ):
        assert await answer(ours, "Say") == "echo-b"
        assert ids(ours) == [("a", "refused"), ("b", "ok")]
    assert second.echo.time_remaining[0] < 19.2  # one second went into connecting to the first


async def test_the_time_of_a_call_ends_it_between_attempts() -> None:
    async with bad_server(never_answer) as silent, calling(describe("echo-a", silent)) as ours:
        with pytest.raises(CallTimeout, match=r"within 0\.3 s: echo-a .* did not finish"):
            await answer(ours, "Say", timeout=0.3)
        assert ids(ours) == [("a", "timeout")]


@pytest.mark.parametrize("kind", KINDS)
async def test_wait_for_ready_waits_for_somebody(kind: str) -> None:
    async with calling(timeout=20.0) as ours:
        waiting = asyncio.ensure_future(answer(ours, kind, wait_for_ready=True))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        async with serving("echo-a") as running:
            await ours.registry.register(running.instance)
            assert await waiting == "echo-a"


async def test_wait_for_ready_waits_for_one_that_is_down() -> None:
    with refusing() as endpoint:
        port = endpoint.port
    async with calling(describe("echo-a", Endpoint("127.0.0.1", port)), timeout=20.0) as ours:
        waiting = asyncio.ensure_future(answer(ours, "Say", wait_for_ready=True))
        while len(ids(ours)) < 2:
            await asyncio.sleep(0.02)
        assert not waiting.done()
        assert ids(ours)[:2] == [("a", "refused")] * 2
        async with serving("echo-a", port=port):
            assert await waiting == "echo-a"


async def test_wait_for_ready_has_an_end() -> None:
    async with calling() as ours:
        with pytest.raises(CallTimeout, match=r"within 0\.3 s: echo: no instance is registered"):
            await answer(ours, "Say", timeout=0.3, wait_for_ready=True)
    async with calling(closed_port()) as ours:
        with pytest.raises(CallTimeout, match=r"within 0\.3 s: echo-a .* can't be reached"):
            await answer(ours, "Say", timeout=0.3, wait_for_ready=True)


# Leaving.


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_leaving_is_not_called_again(second: Running, kind: str) -> None:
    async with serving("echo-a") as first, calling(first.instance, second.instance) as ours:
        assert await answer(ours, kind) == "echo-a"
        await first.server.drain()
        call = ours.stub.Repeat(say("x"))
        assert [reply.instance async for reply in call] == ["echo-a"]
        assert await answer(ours, kind) == "echo-b"
        assert ("a", Outcome.DRAINING.value) in ids(ours)


# What is idempotent.


def test_the_proto_declares_it() -> None:
    assert declares_idempotent("/meshkit.tests.Echo/Look")
    assert declares_idempotent("/meshkit.tests.Echo/Put")
    assert not declares_idempotent("/meshkit.tests.Echo/Say")


@pytest.mark.parametrize("path", ["/meshkit.tests.Echo/Nope", "/no.Service/Look", "nonsense", ""])
def test_what_no_proto_knows_is_not_idempotent(path: str) -> None:
    assert not declares_idempotent(path)


async def test_a_name_that_no_method_has_is_shown() -> None:
    async with calling(idempotent=["Say", "Sy", "Echo/Look"]) as ours:
        assert ours.channel.unmatched == {"Sy"}
