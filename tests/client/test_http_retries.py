"""Answers that are followed by another attempt, and those that are kept."""

from __future__ import annotations

import asyncio
import time

import pytest

from meshkit import identity
from meshkit.client.retry import RetryPolicy
from meshkit.discovery.balancing import Outcome
from meshkit.errors import ConnectionLost, NoInstances
from tests.client.http_servers import (
    Received,
    Server,
    close_after_reading,
    http_answer,
    raw_server,
    refusing,
    users,
)

A = (identity.INSTANCE, "users-a")
SHED = (identity.SHED, "users-a")


def in_turn(*answers: bytes) -> Server:
    """A server that gives these answers one after another, the last one for ever."""
    left = list(answers)

    def answer(_request: Received) -> bytes:
        return left.pop(0) if len(left) > 1 else left[0]

    return Server(answer)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_another_instance_makes_up_for_a_bad_answer(status: int) -> None:
    bad, good = Server(http_answer(status)), Server()
    async with raw_server(bad) as first, raw_server(good) as second, users(first, second) as ours:
        answer = await ours.client.put("/x", content=b"body")
        assert (answer.status_code, answer.instance.id, answer.attempts) == (200, "users-b", 2)
        assert ours.outcomes == [("users-a", Outcome.FAILED), ("users-b", Outcome.OK)]
        assert ours.client.stats.failures == {str(status): 1}
    assert good.received[0].body == b"body"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_bad_answer_is_final_when_not_idempotent(method: str) -> None:
    bad, good = Server(http_answer(503, b"why")), Server()
    async with raw_server(bad) as first, raw_server(good) as second, users(first, second) as ours:
        answer = await ours.client.request(method, "/x", json={})
        assert (answer.status_code, answer.text, answer.attempts) == (503, "why", 1)
        assert ours.outcomes == [("users-a", Outcome.FAILED)]
    assert good.received == []


async def test_a_post_can_be_declared_safe_and_a_get_unsafe() -> None:
    bad = Server(http_answer(503))
    async with raw_server(bad) as first, raw_server(Server()) as second, users(first, second) as it:
        assert (await it.client.post("/x", json={}, idempotent=True)).status_code == 200
        assert (await it.client.get("/x", idempotent=False)).status_code == 503


async def test_a_policy_for_one_call() -> None:
    bad = Server(http_answer(503))
    async with raw_server(bad) as first, raw_server(Server()) as second, users(first, second) as it:
        answer = await it.client.get("/x", retry=RetryPolicy(attempts=1))
        assert (answer.status_code, answer.attempts) == (503, 1)
        answer = await it.client.get("/x", retry=RetryPolicy(statuses=[500]))
        assert (answer.status_code, answer.attempts) == (503, 1)
        answer = await it.client.get("/x")
        assert (answer.status_code, answer.attempts) == (200, 2)


@pytest.mark.parametrize("way", ["whole", "streamed"])
async def test_when_retries_do_not_help_the_last_answer_is_returned(way: str) -> None:
    servers = [Server(http_answer(503, f"no {number}".encode())) for number in range(4)]
    async with (
        raw_server(servers[0]) as a,
        raw_server(servers[1]) as b,
        raw_server(servers[2]) as c,
        raw_server(servers[3]) as d,
        users(a, b, c, d) as ours,
    ):
        if way == "whole":
            answer = await ours.client.get("/x")
            assert (answer.status_code, answer.text, answer.attempts) == (503, "no 2", 3)
        else:
            async with ours.client.stream("GET", "/x") as stream:
                assert (await stream.aread(), stream.attempts) == (b"no 2", 3)
        assert [outcome for _, outcome in ours.outcomes] == [Outcome.FAILED] * 3
        assert ours.client.stats.failed == 0
    assert [len(server.received) for server in servers] == [1, 1, 1, 0]


async def test_an_answer_is_kept_when_the_next_attempt_has_none() -> None:
    bad = Server(http_answer(503, b"why"))
    with refusing() as dead:
        async with raw_server(bad) as first, users(first, dead, attempts=2) as ours:
            answer = await ours.client.get("/x")
            assert (answer.status_code, answer.text) == (503, b"why".decode())
    async with raw_server(bad) as first, raw_server(close_after_reading) as second:
        async with users(first, second, attempts=2) as ours:
            assert (await ours.client.get("/x")).status_code == 503
        async with users(second, attempts=2) as ours:
            with pytest.raises(ConnectionLost):
                await ours.client.get("/x")


async def test_the_only_instance_is_asked_again_after_a_pause() -> None:
    server = in_turn(http_answer(503), http_answer(503), http_answer(200, b"ok"))
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        answer = await ours.client.get("/x")
        assert (answer.text, answer.attempts) == ("ok", 3)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_shed_call_goes_elsewhere_whatever_the_method(method: str) -> None:
    busy = Server(http_answer(503, b"", A, SHED, ("retry-after", "7")))
    good = Server()
    async with raw_server(busy) as first, raw_server(good) as second, users(first, second) as ours:
        answer = await ours.client.request(method, "/x", content=b"body")
        assert (answer.instance.id, answer.attempts) == ("users-b", 2)
        assert ours.outcomes == [("users-a", Outcome.SHED), ("users-b", Outcome.OK)]
        assert ours.client.stats.failures == {"shed": 1}
    assert good.received[0].body == b"body"


async def test_a_call_shed_by_an_instance_that_leaves_goes_elsewhere_too() -> None:
    leaving = (identity.DRAINING, "users-a")
    busy = Server(http_answer(503, b"", A, SHED, leaving, ("retry-after", "7")))
    good = Server()
    async with raw_server(busy) as first, raw_server(good) as second, users(first, second) as ours:
        answer = await ours.client.post("/x", content=b"body")
        assert (answer.instance.id, answer.attempts) == ("users-b", 2)
    assert good.received[0].body == b"body"


async def test_what_the_budget_gave_for_nobody_is_given_back() -> None:
    with refusing() as one, refusing() as two:
        async with users(one, two) as ours:
            budget = ours.client.guards.budget
            before = budget.left
            with pytest.raises(NoInstances, match="after 2 attempts"):
                await ours.client.get("/x")
            assert budget.left == pytest.approx(before + 0.2)


async def test_a_shed_answer_of_whom_a_gateway_called_is_not_the_gateways() -> None:
    passed_on = Server(http_answer(503, b"", A, (identity.SHED, "ledger-x")))
    async with (
        raw_server(passed_on) as first,
        raw_server(Server()) as second,
        users(first, second) as ours,
    ):
        assert (await ours.client.post("/x", content=b"")).status_code == 503
        assert ours.outcomes == [("users-a", Outcome.FAILED)]


async def test_a_shed_call_waits_as_long_as_it_was_told_when_nobody_else_is_there() -> None:
    server = in_turn(http_answer(503, b"", A, SHED, ("retry-after", "1")), http_answer(200, b"ok"))
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        began = time.monotonic()
        answer = await ours.client.post("/x", content=b"body")
        assert (answer.text, answer.attempts) == ("ok", 2)
        assert time.monotonic() - began >= 1


async def test_nobody_waits_in_vain() -> None:
    """Longer than the call has, or than it is worth: the answer is returned at once."""
    server = Server(http_answer(503, b"", A, SHED, ("retry-after", "60")))
    plain = Server(http_answer(503, b"", ("retry-after", "1")))
    async with raw_server(server) as first, raw_server(plain) as second:
        async with users(first, timeout=20) as ours:
            began = time.monotonic()
            assert (await ours.client.get("/x")).status_code == 503
            assert time.monotonic() - began < 10
        async with users(second) as ours:
            assert (await ours.client.get("/x")).attempts == 1


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_a_strange_retry_after_does_no_harm(value: str) -> None:
    server = in_turn(http_answer(503, b"", ("retry-after", value)), http_answer(200, b"ok"))
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        assert (await ours.client.get("/x")).text == "ok"


async def test_what_had_its_retries_further_down_is_not_repeated() -> None:
    bad, good = Server(http_answer(502, b"", (identity.NO_RETRY, "1"))), Server()
    async with raw_server(bad) as first, raw_server(good) as second, users(first, second) as ours:
        assert (await ours.client.get("/x")).status_code == 502
    assert good.received == []


async def test_nothing_is_repeated_when_the_budget_is_used_up() -> None:
    bad, good = Server(http_answer(503)), Server()
    async with (
        raw_server(bad) as first,
        raw_server(good) as second,
        raw_server(close_after_reading) as breaking,
        users(first, second) as ours,
        users(breaking, second) as theirs,
    ):
        for each in (ours, theirs):
            while each.client.guards.budget.withdraw():
                pass
        assert (await ours.client.get("/x")).status_code == 503
        assert ours.client.guards.budget.refused == 2
        with pytest.raises(
            ConnectionLost, match=r"; not repeated, as the retry budget is used up$"
        ):
            await theirs.client.get("/x")
    assert good.received == []


async def test_a_first_refused_connection_costs_nothing() -> None:
    with refusing() as dead:
        async with raw_server(Server()) as good, users(dead, good) as ours:
            while ours.client.guards.budget.withdraw():
                pass
            assert (await ours.client.post("/x", content=b"body")).status_code == 200


async def test_a_call_that_is_given_up_between_attempts() -> None:
    server = Server(http_answer(503, b"", A, SHED, ("retry-after", "5")))
    async with raw_server(server) as endpoint, users(endpoint, timeout=60) as ours:
        call = ours.client.get("/x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.5)
        assert ours.outcomes == [("users-a", Outcome.SHED)]
        assert ours.client.stats.failed == 0
