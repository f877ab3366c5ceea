"""What clients can ask for beyond retries: budgets, try times, hedges, breakers, bulkheads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from meshkit import identity
from meshkit.client.breaker import BreakerPolicy
from meshkit.client.budget import RetryBudget
from meshkit.client.bulkhead import BulkheadPolicy
from meshkit.client.guards import Guards
from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import RetryPolicy
from meshkit.errors import BreakerOpen, BulkheadFull, CallTimeout, ConfigError, ConnectionLost
from tests.client.grpc_servers import Callers, Running, calling, describe, serving
from tests.client.http_servers import refusing
from tests.protos.echo_pb2 import EchoReply, EchoRequest

HELD = "if echo-a sleep 30"  # by the first instance; others answer at once
SOON = RetryPolicy(try_timeout=0.2)
NEVER = RetryPolicy(try_timeout=None)


def say(text: str) -> EchoRequest:
    return EchoRequest(text=text)


def ids(ours: Callers) -> list[tuple[str, str]]:
    return [(name.removeprefix("echo-"), outcome.value) for name, outcome in ours.outcomes]


def previous(running: Running) -> list[list[str]]:
    """How many attempts each call said that came before it."""
    name = "x-meshkit-previous-attempts"
    return [[str(v) for k, v in metadata if k == name] for metadata in running.echo.metadata]


async def until(probe: Any) -> None:
    async with asyncio.timeout(15):
        while not probe():
            await asyncio.sleep(0.01)


@pytest.fixture
async def first() -> AsyncIterator[Running]:
    async with serving("echo-a") as running:
        yield running


@pytest.fixture
async def second() -> AsyncIterator[Running]:
    async with serving("echo-b") as running:
        yield running


# Retries, as gRPC's A6 defines them.


async def test_a_status_that_the_user_names(first: Running, second: Running) -> None:
    retry = RetryPolicy(codes=("ABORTED",))
    async with calling(first.instance, second.instance, retry=retry) as ours:
        request = say("if echo-a abort ABORTED")
        assert (await ours.stub.Look(request)).instance == "echo-b"
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await ours.stub.Say(request)  # not idempotent
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await ours.stub.Look(say("if echo-a abort UNAVAILABLE"))  # not named
    assert ours.channel.stats.failures == {"ABORTED": 2}


async def test_attempts_say_how_many_came_before(first: Running, second: Running) -> None:
    with refusing() as address:
        gone = describe("echo-0", address)
        async with calling(gone, first.instance, second.instance) as ours:
            await ours.stub.Look(say("if echo-a abort UNAVAILABLE"), metadata=(("x-mine", "1"),))
    # The one that nobody got is not counted.
    assert (previous(first), previous(second)) == ([[]], [["1"]])
    assert ("x-mine", "1") in second.echo.metadata[0]


async def test_a_server_says_when_to_ask_again(first: Running, second: Running) -> None:
    async with calling(first.instance, second.instance) as ours:
        call = ours.stub.Look(say("if echo-a abort UNAVAILABLE grpc-retry-pushback-ms=400"))
        await until(lambda: first.echo.texts)
        await asyncio.sleep(0.1)
        assert not second.echo.texts
        assert not call.done()
        assert (await call).instance == "echo-b"


@pytest.mark.parametrize("told", ["-1", "whatever"])
async def test_a_server_says_not_to_ask_again(first: Running, second: Running, told: str) -> None:
    async with calling(first.instance, second.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await ours.stub.Look(say(f"abort UNAVAILABLE grpc-retry-pushback-ms={told}"))
    assert second.echo.texts == []


async def test_asking_again_after_the_end_of_the_calls_time_is_no_use(
    first: Running, second: Running
) -> None:
    async with calling(first.instance, second.instance, timeout=3.0) as ours:
        call = ours.stub.Look(say("abort UNAVAILABLE grpc-retry-pushback-ms=60000"))
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await call
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert second.echo.texts == []


async def test_a_pause_can_be_cancelled(first: Running) -> None:
    async with calling(first.instance) as ours:
        call = ours.stub.Look(say("abort UNAVAILABLE grpc-retry-pushback-ms=5000"))
        await until(lambda: ours.outcomes)
        waiting = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert call.cancelled()


async def test_an_error_from_further_down_is_not_repeated_here(
    first: Running, second: Running
) -> None:
    async with calling(first.instance, second.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await ours.stub.Look(say(f"abort UNAVAILABLE {identity.NO_RETRY}=1"))
    assert second.echo.texts == []


async def test_the_only_instance_is_asked_again_after_a_pause(first: Running) -> None:
    async with calling(first.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await ours.stub.Look(say("abort UNAVAILABLE"))
    assert previous(first) == [[], ["1"], ["2"]]


@pytest.mark.parametrize("method", ["Say", "Look"])
async def test_a_call_that_was_shed_goes_elsewhere_at_once(
    first: Running, second: Running, method: str
) -> None:
    shed = f"{identity.SHED}=echo-a grpc-retry-pushback-ms=60000"
    async with calling(first.instance, second.instance, timeout=30.0) as ours:
        request = say(f"if echo-a abort RESOURCE_EXHAUSTED {shed}")
        assert (await getattr(ours.stub, method)(request)).instance == "echo-b"
    assert ids(ours) == [("a", "shed"), ("b", "ok")]


async def test_a_call_that_all_shed_has_the_servers_answer(first: Running) -> None:
    async with calling(first.instance) as ours:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ours.stub.Say(say(f"abort RESOURCE_EXHAUSTED {identity.SHED}=echo-a"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# The budget.


async def test_retries_end_with_the_budget(first: Running, second: Running) -> None:
    guards = Guards("echo", RetryBudget(share=0.2, floor=0.0))
    async with calling(first.instance, second.instance, guards=guards) as ours:
        calls = 60
        for _ in range(calls):
            with pytest.raises(grpc.aio.AioRpcError):
                await ours.stub.Look(say("abort UNAVAILABLE"))
        reached = len(first.echo.texts) + len(second.echo.texts)
        assert calls < reached <= calls * 1.2
        assert guards.budget.refused > 0


async def test_the_first_refused_connection_costs_nothing(first: Running) -> None:
    guards = Guards("echo", RetryBudget(share=0.0, floor=0.0))
    with refusing() as address:
        gone = [describe(name, address) for name in ("echo-0", "echo-1")]
        async with calling(gone[0], first.instance, guards=guards) as ours:
            assert (await ours.stub.Say(say("x"))).instance == "echo-a"
        async with calling(*gone, first.instance, guards=guards) as ours:
            with pytest.raises(grpc.aio.AioRpcError, match="retry budget of this service"):
                await ours.stub.Say(say("x"))


async def test_what_the_budget_gave_for_nobody_is_given_back() -> None:
    guards = Guards("echo", RetryBudget(share=0.0, floor=1.0))
    with refusing() as address:
        gone = [describe(name, address) for name in ("echo-0", "echo-1")]
        async with calling(*gone, guards=guards) as ours:
            before = guards.budget.left
            with pytest.raises(grpc.aio.AioRpcError, match="no instance left to try"):
                await ours.stub.Say(say("x"))
            assert guards.budget.left == before


# The time of one try.


async def test_a_hung_instance_costs_one_try_time(first: Running, second: Running) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        assert (await ours.stub.Look(say(HELD))).instance == "echo-b"
        await until(lambda: len(ours.outcomes) == 2)
        assert sorted(ids(ours)) == [("a", "timeout"), ("b", "ok")]
        await until(lambda: first.echo.cancelled)  # it works for nobody any more
    stats = ours.channel.stats
    assert (stats.retried, stats.hedged, stats.won, stats.failed) == (1, 1, 1, 0)
    assert previous(second) == [["1"]]


@pytest.mark.parametrize("method", ["Say", "Repeat", "Chat"])
async def test_only_idempotent_calls_of_one_message_are_asked_twice(
    first: Running, second: Running, method: str
) -> None:
    idempotent = [] if method == "Say" else [method]
    kwargs: Any = {"retry": SOON, "idempotent": idempotent}
    async with calling(first.instance, second.instance, **kwargs) as ours:
        request: Any = iter([say(HELD)]) if method == "Chat" else say(HELD)
        call = getattr(ours.stub, method)(request, timeout=0.8)
        with pytest.raises(CallTimeout):
            await (call if method == "Say" else call.read())
    assert second.echo.texts == []


async def test_a_slow_handler_is_not_broken(first: Running, second: Running) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        reply: EchoReply = await ours.stub.Look(say("sleep 0.8"))
        assert reply.instance == "echo-a"
        await until(lambda: second.echo.cancelled)
    assert (len(first.echo.texts), len(second.echo.texts)) == (1, 1)


async def test_a_slow_service_is_not_doubled(first: Running, second: Running) -> None:
    guards = Guards("echo")
    async with calling(first.instance, second.instance, retry=SOON, guards=guards) as ours:
        for _ in range(200):
            guards.answered(1.0)  # as its usual slow answers
        await ours.stub.Look(say("sleep 0.6"))
    assert second.echo.texts == []


async def test_how_long_answers_take_is_learnt(first: Running) -> None:
    guards = Guards("echo")
    async with calling(first.instance, guards=guards) as ours:
        before = guards.slow.seconds
        for _ in range(10):
            await ours.stub.Look(say("sleep 0.1"))
        assert guards.slow.seconds > before


async def test_no_second_attempt_without_budget(first: Running, second: Running) -> None:
    guards = Guards("echo", RetryBudget(share=0.0, floor=0.0))
    async with calling(first.instance, second.instance, retry=SOON, guards=guards) as ours:
        assert (await ours.stub.Look(say("if echo-a sleep 0.6"))).instance == "echo-a"
    assert second.echo.texts == []
    assert guards.budget.refused == 1


async def test_alone_an_instance_is_waited_for(first: Running) -> None:
    async with calling(first.instance, retry=SOON) as ours:
        assert (await ours.stub.Look(say("sleep 0.6"))).instance == "echo-a"
    assert len(first.echo.texts) == 1


async def test_whoever_answers_well_wins_over_whoever_fails(
    first: Running, second: Running
) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        assert (await ours.stub.Look(say("then abort UNAVAILABLE"))).instance == "echo-a"
        assert ids(ours) == [("b", "failed"), ("a", "ok")]


async def test_a_second_attempt_that_fails_leaves_the_first_one_alone(first: Running) -> None:
    with refusing() as address:
        gone = describe("echo-b", address)
        async with calling(first.instance, gone, retry=SOON) as ours:
            assert (await ours.stub.Look(say("sleep 0.8"))).instance == "echo-a"
            assert ids(ours) == [("b", "refused"), ("a", "ok")]


async def test_a_first_attempt_that_fails_leaves_the_second_one_alone(second: Running) -> None:
    first = await serving("echo-a").__aenter__()
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        call = asyncio.ensure_future(ours.stub.Look(say("sleep 1.5")))
        await until(lambda: second.echo.texts)
        await first.server.stop(grace=0)
        assert (await call).instance == "echo-b"
    assert len(second.echo.texts) == 1


async def test_an_answer_is_final_whoever_gives_it(first: Running, second: Running) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        call = ours.stub.Look(say("then abort NOT_FOUND"))
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await call
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        await until(lambda: first.echo.cancelled)


@pytest.mark.parametrize("by", ["task", "call"])
async def test_giving_up_ends_all_attempts(first: Running, second: Running, by: str) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        call = ours.stub.Look(say("sleep 30"))
        waiting = asyncio.ensure_future(call)
        await until(lambda: second.echo.texts)
        if by == "task":
            waiting.cancel()
        else:
            assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: first.echo.cancelled and second.echo.cancelled)
        await until(lambda: len(ours.outcomes) == 2)
        assert call.cancelled()


async def test_all_attempts_share_the_calls_time(first: Running, second: Running) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        with pytest.raises(CallTimeout, match=r"no answer within 0\.8 s"):
            await ours.stub.Look(say("sleep 30"), timeout=0.8)
        await until(lambda: len(ours.outcomes) == 2)


async def test_there_are_no_more_attempts_than_the_policy_allows() -> None:
    async with (
        serving("echo-a") as a,
        serving("echo-b") as b,
        serving("echo-c") as c,
        calling(
            *(each.instance for each in (a, b, c)),
            retry=RetryPolicy(attempts=2, try_timeout=0.1),
        ) as ours,
    ):
        await ours.stub.Look(say("sleep 1"))
        assert [len(each.echo.texts) for each in (a, b, c)] == [1, 1, 0]


# Hedges.


async def test_a_hedge_begins_after_its_delay(first: Running, second: Running) -> None:
    policies: Any = {"retry": NEVER, "hedge": HedgePolicy(delay=0.1)}
    async with calling(first.instance, second.instance, **policies) as ours:
        call = ours.stub.Look(say(HELD))
        assert (await call).instance == "echo-b"
        trailing = dict(iter(await call.trailing_metadata()))
        assert trailing[identity.INSTANCE] == "echo-b"
        await until(lambda: len(ours.outcomes) == 2)
        # To be slower than another one is no fault.
        assert sorted(ids(ours)) == [("a", "cancelled"), ("b", "ok")]


async def test_a_hedge_goes_by_the_services_own_latency(first: Running, second: Running) -> None:
    guards = Guards("echo")
    policies: Any = {"retry": NEVER, "hedge": HedgePolicy(percentile=90), "guards": guards}
    async with calling(first.instance, second.instance, **policies) as ours:
        for _ in range(40):
            await ours.stub.Look(say("x"))
        assert guards.percentile(90).seconds < 0.05
        assert (await ours.stub.Look(say(HELD))).instance == "echo-b"


async def test_a_server_that_says_so_is_not_hedged(first: Running, second: Running) -> None:
    policies: Any = {"retry": NEVER, "hedge": HedgePolicy(delay=0.2)}
    async with calling(first.instance, second.instance, **policies) as ours:
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await ours.stub.Look(say("if echo-a abort UNAVAILABLE grpc-retry-pushback-ms=-1"))
    assert second.echo.texts == []


# Breaker and bulkhead.


async def test_a_breaker_opens_and_closes_again(first: Running) -> None:
    breaker = BreakerPolicy(volume=5, pause=0.3, probes=1)
    async with calling(first.instance, breaker=breaker) as ours:
        for _ in range(5):
            with pytest.raises(grpc.aio.AioRpcError, match="own words"):
                await ours.stub.Say(say("abort INTERNAL"))
        call = ours.stub.Say(say("x"))
        with pytest.raises(BreakerOpen, match="circuit breaker open"):
            await call
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert len(first.echo.texts) == 5
        await asyncio.sleep(0.4)
        assert (await ours.stub.Say(say("x"))).text == "x"
        assert (await ours.stub.Say(say("x"))).text == "x"


async def test_answers_that_are_the_callers_fault_do_not_open_it(first: Running) -> None:
    async with calling(first.instance, breaker=BreakerPolicy(volume=3)) as ours:
        for _ in range(6):
            with pytest.raises(grpc.aio.AioRpcError, match="own words"):
                await ours.stub.Say(say("abort NOT_FOUND"))
        for _ in range(6):
            waiting = asyncio.ensure_future(ours.stub.Say(say("sleep 30")))
            await asyncio.sleep(0.02)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert (await ours.stub.Say(say("x"))).text == "x"


async def test_a_bulkhead_bounds_the_calls_under_way(first: Running) -> None:
    bulkhead = BulkheadPolicy(concurrent=2, queue=1, wait=10)
    async with calling(first.instance, bulkhead=bulkhead) as ours:
        slow = [ours.stub.Say(say("sleep 0.5")) for _ in range(2)]
        queued = ours.stub.Say(say("queued"))
        with pytest.raises(BulkheadFull, match="2 calls are under way") as caught:
            await ours.stub.Say(say("x"))
        assert isinstance(caught.value, grpc.aio.AioRpcError)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await queued).text == "queued"
        await asyncio.gather(*slow)
        assert (await ours.stub.Say(say("x"))).text == "x"
    assert ours.channel.plan.bulkhead
    assert ours.channel.plan.bulkhead.busy == 0


async def test_waiting_for_a_place_can_be_given_up(first: Running) -> None:
    bulkhead = BulkheadPolicy(concurrent=1, queue=3, wait=10)
    async with calling(first.instance, bulkhead=bulkhead) as ours:
        slow = ours.stub.Chat()  # a stream holds its place
        await slow.write(say("x"))
        given_up = asyncio.ensure_future(ours.stub.Say(say("given up")))
        await asyncio.sleep(0.05)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        late = ours.stub.Say(say("late"), timeout=0.2)
        with pytest.raises(BulkheadFull):
            await late
        await slow.done_writing()
        assert [reply.text async for reply in slow] == ["x"]
        assert await slow.code() is grpc.StatusCode.OK
        assert (await ours.stub.Say(say("y"))).text == "y"
    assert first.echo.texts == ["x", "y"]
    assert ours.channel.plan.bulkhead
    assert ours.channel.plan.bulkhead.busy == 0


# Policies of single methods.


async def test_a_method_with_a_policy_of_its_own(first: Running, second: Running) -> None:
    async with calling(first.instance, second.instance, retry=SOON) as ours:
        once = ours.stub.Look.using(retry=RetryPolicy(attempts=1))
        with pytest.raises(grpc.aio.AioRpcError, match="own words"):
            await once(say("abort UNAVAILABLE"))
        assert second.echo.texts == []
        twice = ours.stub.Say.using(idempotent=True)
        assert (await twice(say(HELD))).instance == "echo-b"
        assert (await ours.stub.Look(say("if echo-a abort UNAVAILABLE"))).instance == "echo-b"


async def test_a_policy_that_can_not_be() -> None:
    with pytest.raises(ConfigError, match="codes must be names of gRPC errors"):
        RetryPolicy(codes=("NOT_THERE",))


async def test_a_lost_call_that_may_not_be_repeated_says_so(second: Running) -> None:
    async with (
        serving("echo-a") as running,
        calling(running.instance, second.instance, retry=SOON) as ours,
    ):
        call = ours.stub.Say(say("sleep 30"))
        await until(lambda: running.echo.texts)
        await running.server.stop(grace=0)
        with pytest.raises(ConnectionLost, match="not known to be idempotent"):
            await call
