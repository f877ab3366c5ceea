"""Server processes that die or hang under calls: what their callers see."""

from __future__ import annotations

import asyncio
import math
import signal
import time

import grpc
import grpc.aio
import pytest

from meshkit.discovery.balancing import RoundRobin
from meshkit.errors import ConnectionLost
from tests.client.grpc_servers import calling, server_processes, serving
from tests.protos.echo_pb2 import EchoRequest
from tests.support.load import Load


def say(text: str) -> EchoRequest:
    return EchoRequest(text=text)


async def test_a_killed_process_costs_idempotent_callers_nothing() -> None:
    with server_processes("echo-a", "echo-b", "echo-c") as [first, second, third]:
        instances = (first.instance, second.instance, third.instance)
        async with calling(*instances, balancer=RoundRobin) as ours:

            async def call() -> str:
                reply = await ours.stub.Look(say("sleep 0.02"))
                return str(reply.instance)

            async with Load(call, rate=100) as load:
                await asyncio.sleep(1)
                first.end()
                await asyncio.sleep(1.5)
    assert load.errors == []
    assert set(load.answers) == {"echo-a", "echo-b", "echo-c"}
    assert ours.channel.stats.retried > 0


async def test_a_killed_process_costs_others_only_what_was_under_way() -> None:
    with server_processes("echo-a", "echo-b") as [first, second]:
        async with calling(first.instance, second.instance, balancer=RoundRobin) as ours:
            await asyncio.gather(*(ours.stub.Say(say("x")) for _ in range(8)))
            calls = [asyncio.ensure_future(ours.stub.Say(say("sleep 1"))) for _ in range(8)]
            await asyncio.sleep(0.3)
            first.end()
            await asyncio.sleep(0.3)  # until the kernel has told us
            later = [await ours.stub.Say(say("x")) for _ in range(20)]
            ended = await asyncio.gather(*calls, return_exceptions=True)
    lost = [each for each in ended if isinstance(each, BaseException)]
    assert {type(each).__mro__[1] for each in lost} == {ConnectionLost}
    assert len(lost) == 4
    assert {reply.instance for reply in later} == {"echo-b"}


@pytest.mark.parametrize("kind", ["Join", "Chat"])
async def test_messages_that_were_sent_are_not_sent_again(kind: str) -> None:
    with server_processes("echo-a") as [first]:
        async with (
            serving("echo-b") as second,
            calling(first.instance, second.instance, idempotent=[kind]) as ours,
        ):
            call = getattr(ours.stub, kind)()
            await call.write(say("sleep 30"))
            first.end()
            with pytest.raises(ConnectionLost, match="not repeated, as its messages were a stream"):
                await (call if kind == "Join" else call.read())
        assert second.echo.texts == []


async def test_the_same_instance_is_called_again_over_a_new_connection() -> None:
    async with serving("echo-a") as before, calling(before.instance, timeout=20.0) as ours:
        await ours.stub.Say(say("x"))
        port = before.server.port
        await before.server.stop(grace=0)
        async with serving("echo-a", port=port) as after:
            await ours.stub.Say(say("x"), wait_for_ready=True)
            assert after.echo.texts == ["x"]


@pytest.mark.slow
@pytest.mark.parametrize("idempotent", [[], ["Say"]], ids=["not idempotent", "idempotent"])
async def test_a_hung_process_is_noticed_by_a_call_without_a_deadline(
    idempotent: list[str],
) -> None:
    with server_processes("echo-a", "echo-b") as [first, second]:
        async with calling(first.instance, second.instance, idempotent=idempotent) as ours:
            await ours.stub.Say(say("x"))
            await asyncio.sleep(1)
            first.send(signal.SIGSTOP)
            started = time.monotonic()
            async with asyncio.timeout(60):
                if idempotent:
                    reply = await ours.stub.Say(say("x"), timeout=math.inf)
                    assert reply.instance == "echo-b"
                else:
                    with pytest.raises(ConnectionLost, match="ping timeout"):
                        await ours.stub.Say(say("x"), timeout=math.inf)
            assert time.monotonic() - started < 20


async def test_a_hung_process_is_passed_over_while_connecting() -> None:
    with server_processes("echo-a", "echo-b") as [first, second]:
        first.send(signal.SIGSTOP)
        async with calling(first.instance, second.instance, timeout=20.0) as ours:
            assert (await ours.stub.Say(say("x"))).instance == "echo-b"


@pytest.mark.slow
async def test_a_quiet_call_to_our_own_server_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Client and server have to agree on pings: three too many, and the server hangs up.
    monkeypatch.setattr("meshkit.client.grpc.pool.KEEPALIVE", 7.0)
    async with serving("echo-a") as running, calling(running.instance, timeout=90.0) as ours:
        call = ours.stub.Chat()
        await call.write(say("sleep 40"))
        assert (await call.read()).instance == "echo-a"
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
