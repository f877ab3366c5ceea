"""Instances that take long: another one is asked too, and whoever answers first wins."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import time
import warnings
from collections.abc import AsyncIterator

import pytest

from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import RetryPolicy
from meshkit.discovery.balancing import Outcome
from meshkit.errors import CallTimeout
from tests.client.http_servers import (
    Handler,
    Server,
    Users,
    close_after_reading,
    http_answer,
    never_answer,
    raw_server,
    read_request,
    refusing,
    users,
)

QUICK = RetryPolicy(try_timeout=0.05)  # and at least 0.15 s: three times the first guess
HEDGE = HedgePolicy(delay=0.02)


def after(seconds: float, answer: bytes = b"") -> Handler:
    """Return a server that takes its time."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(seconds)
            writer.write(answer or http_answer(200, b"slow"))

    return serve


@contextlib.asynccontextmanager
async def serving(*handlers: Handler, **options: object) -> AsyncIterator[Users]:
    async with contextlib.AsyncExitStack() as stack:
        endpoints = [await stack.enter_async_context(raw_server(each)) for each in handlers]
        yield await stack.enter_async_context(users(*endpoints, **options))  # type: ignore[arg-type]


async def get(ours: Users, way: str) -> tuple[int, str, int]:
    if way == "whole":
        answer = await ours.client.get("/x")
        return answer.status_code, answer.text, answer.attempts
    async with ours.client.stream("GET", "/x") as stream:
        await stream.aread()
        return stream.status_code, stream.text, stream.attempts


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_a_hung_instance_costs_one_try_time(way: str) -> None:
    async with serving(never_answer, Server(), timeout=60, retry=RetryPolicy()) as ours:
        began = time.monotonic()
        assert await get(ours, way) == (200, "ok", 2)
        assert 0.4 <= time.monotonic() - began < 20
        assert ours.outcomes == [("users-a", Outcome.TIMEOUT), ("users-b", Outcome.OK)]
        stats = ours.client.stats
        assert (stats.calls, stats.failed, stats.retried) == (1, 0, 1)
        assert (stats.hedged, stats.won, stats.failures) == (1, 1, {"timeout": 1})


async def test_two_hung_instances_cost_two() -> None:
    async with serving(never_answer, never_answer, Server(), timeout=60, retry=QUICK) as ours:
        assert await get(ours, "whole") == (200, "ok", 3)
        assert sorted(ours.outcomes, key=str) == [
            ("users-a", Outcome.TIMEOUT),
            ("users-b", Outcome.TIMEOUT),
            ("users-c", Outcome.OK),
        ]


async def test_no_more_attempts_than_the_policy_has() -> None:
    hung = [never_answer] * 4
    async with serving(*hung, timeout=2.0, retry=QUICK) as ours:
        with pytest.raises(CallTimeout, match=r"^users: GET /x: no answer within 2 s: users-"):
            await ours.client.get("/x")
        assert (ours.client.stats.retried, len(ours.outcomes)) == (2, 3)
        assert {outcome for _, outcome in ours.outcomes} == {Outcome.TIMEOUT}


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_the_first_may_still_win(way: str) -> None:
    async with serving(after(0.5), never_answer, timeout=60, retry=QUICK) as ours:
        assert await get(ours, way) == (200, "slow", 2)
        await eventually(lambda: len(ours.outcomes) == 2)
        assert sorted(ours.outcomes) == sorted(
            [("users-a", Outcome.OK), ("users-b", Outcome.TIMEOUT)], key=str
        )
        assert (ours.client.stats.hedged, ours.client.stats.won) == (1, 0)


async def eventually(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_a_bad_second_answer_does_not_end_the_first_attempt(way: str) -> None:
    bad = Server(http_answer(503, b"bad"))
    async with serving(after(0.6), bad, timeout=60, retry=QUICK) as ours:
        status, text, _ = await get(ours, way)
        assert (status, text) == (200, "slow")


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_when_both_are_bad_an_answer_is_returned(way: str) -> None:
    bad = Server(http_answer(503, b"second"))
    policy = RetryPolicy(try_timeout=0.05, attempts=2)
    async with serving(after(0.6, http_answer(502, b"first")), bad, retry=policy) as ours:
        assert await get(ours, way) == (502, "first", 2)
    async with serving(
        after(0.3, http_answer(502, b"first")),
        after(0.6, http_answer(503, b"second")),
        retry=policy,
    ) as ours:
        assert await get(ours, way) == (503, "second", 2)


async def test_when_the_first_breaks_the_second_goes_on() -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.3)

    async with serving(breaking, after(0.6), timeout=60, retry=QUICK) as ours:
        assert await get(ours, "whole") == (200, "slow", 2)
        assert ours.outcomes == [("users-a", Outcome.FAILED), ("users-b", Outcome.OK)]


async def test_when_the_second_breaks_a_third_is_asked() -> None:
    async with serving(never_answer, close_after_reading, Server(), timeout=60, retry=QUICK) as it:
        assert await get(it, "whole") == (200, "ok", 3)


async def test_a_single_instance_is_waited_for() -> None:
    async with serving(after(0.6), timeout=60, retry=QUICK) as ours:
        assert await get(ours, "whole") == (200, "slow", 1)
        assert ours.outcomes == [("users-a", Outcome.OK)]
        assert ours.client.guards.budget.left > 99


async def test_the_budget_is_for_second_attempts_too() -> None:
    async with serving(after(0.6), Server(), timeout=60, retry=QUICK) as ours:
        while ours.client.guards.budget.withdraw():
            pass
        assert await get(ours, "whole") == (200, "slow", 1)


@pytest.mark.parametrize("why", ["post", "stream", "one attempt", "never"])
async def test_what_is_not_asked_twice(why: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"

    async with serving(after(0.6), Server(), timeout=60, retry=QUICK) as ours:
        match why:
            case "post":
                answer = await ours.client.post("/x", json={})
            case "stream":
                answer = await ours.client.put("/x", content=pieces())
            case "one attempt":
                answer = await ours.client.get("/x", retry=RetryPolicy(attempts=1), hedge=HEDGE)
            case _:
                answer = await ours.client.get("/x", retry=RetryPolicy(try_timeout=None))
        assert (answer.text, answer.attempts) == ("slow", 1)


async def test_a_slow_service_is_not_asked_twice_for_everything() -> None:
    """A second attempt would double what already takes long; the first calls teach that."""
    handlers = [after(0.2), after(0.2)]
    async with serving(*handlers, timeout=60, retry=RetryPolicy(try_timeout=0.05)) as ours:
        for _ in range(10):
            await asyncio.gather(*[ours.client.get("/x") for _ in range(10)])
        before = ours.client.stats.hedged
        for _ in range(5):
            await asyncio.gather(*[ours.client.get("/x") for _ in range(10)])
        assert ours.client.stats.hedged - before <= 5


async def test_a_hedge_cuts_the_slow_answers() -> None:
    async with serving(after(2.0), Server(), timeout=60, hedge=HEDGE) as ours:
        assert await get(ours, "whole") == (200, "ok", 2)
        assert ours.outcomes[0][0] == "users-a"
        assert ours.outcomes[1] == ("users-b", Outcome.OK)
    async with serving(after(2.0), Server(), timeout=60) as ours:
        answer = await ours.client.post("/x", json={}, idempotent=True, hedge=HEDGE)
        assert answer.text == "ok"


async def test_a_hedge_by_percentile_goes_by_what_the_service_takes() -> None:
    async with serving(Server(), Server(), hedge=HedgePolicy(percentile=90)) as ours:
        for _ in range(300):
            await ours.client.get("/x")
        assert ours.client.guards.percentile(90).seconds < 0.05
        assert ours.client.stats.hedged < 150


async def test_a_caller_who_gives_up_ends_both() -> None:
    async with serving(never_answer, never_answer, never_answer, timeout=60, hedge=HEDGE) as ours:
        call = asyncio.create_task(ours.client.get("/x"))
        await eventually(lambda: ours.client.stats.hedged == 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await eventually(lambda: len(ours.outcomes) == 3)
        assert len(asyncio.all_tasks()) == tasks_of_the_fixture()


def tasks_of_the_fixture() -> int:
    """Those that are not of a call: this test, the subscription, and the servers' connections."""
    names = [repr(task.get_coro()) for task in asyncio.all_tasks()]
    assert not [name for name in names if "Exchange" in name]
    return len(names)


async def test_an_outer_timeout_works_as_always() -> None:
    async with serving(never_answer, never_answer, timeout=60, hedge=HEDGE) as ours:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ours.client.get("/x")
    async with serving(never_answer, Server(), timeout=60, hedge=HEDGE) as ours:
        async with asyncio.timeout(20):
            assert (await ours.client.get("/x")).text == "ok"
            await asyncio.sleep(0.01)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_the_second_attempt_sees_the_callers_context() -> None:
    variable = contextvars.ContextVar("variable", default="nothing")
    seen = []
    async with serving(never_answer, Server(), timeout=60, hedge=HEDGE) as ours:
        send = ours.client._transport.send

        async def recording(request: object) -> object:
            seen.append(variable.get())
            return await send(request)  # type: ignore[arg-type]

        ours.client._transport.send = recording  # type: ignore[method-assign,assignment]

        async def call(value: str) -> None:
            variable.set(value)
            await ours.client.get("/x")

        await asyncio.gather(call("one"), call("two"))
    assert sorted(seen) == ["one", "one", "two", "two"]


async def test_cancellation_at_any_moment_leaves_nothing_behind() -> None:
    """Calls given up at random moments, around the one at which the second answer arrives."""
    async with serving(after(0.05), after(0.03), Server(), timeout=60, hedge=HEDGE) as ours:
        with warnings.catch_warnings():
            warnings.simplefilter("error")

            async def call(number: int) -> None:
                way = "whole" if number % 2 else "streamed"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.018 + number % 40 / 1000):
                        await get(ours, way)
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0

            for start in range(0, 400, 20):
                await asyncio.gather(*[call(number) for number in range(start, start + 20)])
            stats = ours.client.stats
            await eventually(lambda: len(ours.outcomes) == stats.calls + stats.retried)
            gc.collect()
        tasks_of_the_fixture()
        assert len(ours.client._plans.usual.overdue) == 0


async def test_refused_and_hung_together() -> None:
    with refusing() as dead:
        async with (
            raw_server(never_answer) as hung,
            raw_server(Server()) as good,
            users(dead, hung, good, timeout=60, retry=QUICK) as ours,
        ):
            answer = await ours.client.get("/x")
            assert (answer.text, answer.attempts) == ("ok", 3)
