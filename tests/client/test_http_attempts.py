"""Who is tried, who is tried next, and what the caller is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from meshkit.discovery.balancing import Outcome
from meshkit.errors import (
    CallError,
    ConnectError,
    ConnectionLost,
    NoInstances,
)
from tests.client.http_servers import (
    Server,
    close_after_reading,
    http_answer,
    never_answer,
    raw_server,
    read_request,
    refusing,
    users,
)

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"]
NOT_IDEMPOTENT = ["POST", "PATCH"]


@pytest.mark.parametrize("method", [*IDEMPOTENT, *NOT_IDEMPOTENT])
async def test_a_refused_connection_moves_on_whatever_the_method(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "meshkit.client")
    server = Server()
    with refusing() as dead:
        async with raw_server(server) as alive, users(dead, alive) as ours:
            answer = await ours.client.request(method, "/x?token=hush")
            assert (answer.instance.id, answer.attempts) == ("users-b", 2)
            assert ours.outcomes == [("users-a", Outcome.REFUSED), ("users-b", Outcome.OK)]
            stats = ours.client.stats
            assert (stats.calls, stats.failed, stats.retried) == (1, 0, 1)
    assert len(server.received) == 1
    assert caplog.messages == [
        f"users: {method} /x: users-a ({dead}) refused the connection; trying users-b"
    ]


async def test_refusals_are_not_counted_against_the_attempts() -> None:
    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(refusing()) for _ in range(6)]
        async with raw_server(Server()) as alive, users(*dead, alive, attempts=1) as ours:
            assert (await ours.client.post("/x", json={})).attempts == 7
        async with (
            raw_server(close_after_reading) as bad,
            raw_server(Server()) as alive,
            users(*dead, bad, alive, attempts=2) as ours,
        ):
            assert (await ours.client.get("/x")).attempts == 8


@pytest.mark.parametrize("method", IDEMPOTENT)
async def test_a_broken_connection_moves_on_when_idempotent(method: str) -> None:
    server = Server()
    async with (
        raw_server(close_after_reading) as bad,
        raw_server(server) as good,
        users(bad, good) as ours,
    ):
        answer = await ours.client.request(method, "/x", content=b"body")
        assert (answer.instance.id, answer.attempts) == ("users-b", 2)
        assert ours.outcomes == [("users-a", Outcome.FAILED), ("users-b", Outcome.OK)]
    assert server.received[0].body == b"body"


@pytest.mark.parametrize("method", NOT_IDEMPOTENT)
async def test_a_broken_connection_is_final_when_not_idempotent(method: str) -> None:
    server = Server()
    async with (
        raw_server(close_after_reading) as bad,
        raw_server(server) as good,
        users(bad, good) as ours,
    ):
        with pytest.raises(ConnectionLost) as caught:
            await ours.client.request(method, "/x?token=hush", json={})
        assert ours.outcomes == [("users-a", Outcome.FAILED)]
        stats = ours.client.stats
        assert (stats.calls, stats.failed, stats.retried) == (1, 1, 0)
    assert str(caught.value) == (
        f"users: {method} /x: users-a ({bad}) broke the connection (connection closed before "
        f"message completed); not repeated, as {method} may have had an effect"
    )
    assert server.received == []


async def test_calls_that_may_have_been_processed_are_limited() -> None:
    seen = []

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))

    async with raw_server(close) as bad, users(bad, bad, bad, bad, attempts=3) as ours:
        with pytest.raises(ConnectionLost, match=r"; given up after 3 attempts$") as caught:
            await ours.client.get("/x")
        assert ours.client.stats.retried == 2
    assert len(seen) == 3
    assert str(caught.value).count("broke the connection") == 3


async def test_the_error_tells_each_reason() -> None:
    """The one that can't be reached is not asked again, the other one is, after a pause."""
    with refusing() as dead:
        async with raw_server(close_after_reading) as bad, users(dead, bad, attempts=2) as ours:
            with pytest.raises(ConnectionLost) as caught:
                await ours.client.get("/x?token=hush")
            stats = ours.client.stats
            assert (stats.calls, stats.failed, stats.retried) == (1, 1, 2)
            assert stats.failures == {"refused": 1, "lost": 2}
    lost = f"users-b ({bad}) broke the connection (connection closed before message completed)"
    assert str(caught.value) == (
        f"users: GET /x: users-a ({dead}) refused the connection; {lost}; {lost}; "
        f"given up after 3 attempts"
    )


async def test_one_instance_one_attempt() -> None:
    with refusing() as dead:
        async with users(dead) as ours:
            with pytest.raises(NoInstances, match="after 1 attempt: users-a ") as caught:
                await ours.client.post("/x")
    assert isinstance(caught.value.__cause__, ConnectError)


async def test_many_reasons_stay_on_one_short_line() -> None:
    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(refusing()) for _ in range(9)]
        async with users(*dead) as ours:
            with pytest.raises(NoInstances) as caught:
                await ours.client.get("/x")
    assert str(caught.value).count("refused the connection") == 5
    assert str(caught.value).endswith("; and 4 more")


async def test_nobody_registered() -> None:
    async with users() as ours:
        with pytest.raises(NoInstances, match=r"^users: no instance is registered$"):
            await ours.client.get("/x")
        assert (ours.client.stats.calls, ours.client.stats.failed) == (1, 1)


@pytest.mark.parametrize("status", [200, 302, 400, 404, 429, 500, 501])
async def test_most_answers_are_final(status: int) -> None:
    server = Server(http_answer(status, b"why"))
    async with raw_server(server) as endpoint, users(endpoint, endpoint) as ours:
        answer = await ours.client.get("/x")
        assert (answer.status_code, answer.text, answer.attempts) == (status, "why", 1)
        outcome = Outcome.FAILED if status >= 500 else Outcome.OK
        assert ours.outcomes == [("users-a", outcome)]
        assert ours.client.stats.failed == 0
    assert len(server.received) == 1


async def pieces() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def test_a_streamed_body_is_sent_to_another_instance_only_if_it_was_not_begun() -> None:
    server = Server()
    with refusing() as dead:
        async with raw_server(server) as alive, users(dead, alive) as ours:
            assert (await ours.client.post("/x", content=pieces())).attempts == 2
    assert server.received[0].body == b"onetwo"
    async with (
        raw_server(close_after_reading) as bad,
        raw_server(server) as good,
        users(bad, good) as ours,
    ):
        with pytest.raises(ConnectionLost, match=r"; not repeated, as its body was a stream$"):
            await ours.client.put("/x", content=pieces())
        assert ours.outcomes == [("users-a", Outcome.FAILED)]
    assert len(server.received) == 1


@pytest.mark.parametrize("way", ["send", "stream"])
async def test_a_cancelled_call(way: str) -> None:
    reached = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        reached.set()
        await reader.read()

    async with raw_server(hang) as endpoint, users(endpoint, timeout=60) as ours:

        async def call() -> None:
            if way == "send":
                await ours.client.get("/x")
            else:
                async with ours.client.stream("GET", "/x"):
                    pass

        task = asyncio.create_task(call())
        async with asyncio.timeout(20):
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert ours.outcomes == [("users-a", Outcome.CANCELLED)]
        assert ours.client.stats.failed == 0


async def test_an_error_in_the_callers_body_says_nothing_of_the_instance() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError("mine")

    async with raw_server(never_answer) as endpoint, users(endpoint) as ours:
        with pytest.raises(KeyError, match="mine"):
            await ours.client.post("/x", content=broken())
        assert ours.outcomes == [("users-a", Outcome.CANCELLED)]


async def test_a_closed_transport() -> None:
    async with raw_server(Server()) as endpoint, users(endpoint, endpoint) as ours:
        assert (await ours.client.get("/x")).text == "ok"
        await ours.client._transport.aclose()
        with pytest.raises(CallError, match=r"users: GET /x: users-a .* client is closed$"):
            await ours.client.get("/x")
        assert ours.client.stats.retried == 0


async def test_each_pick_is_accounted_for_once() -> None:
    """Under a mixture of everything, as many outcomes as picks, one for each attempt."""
    with refusing() as dead:
        async with (
            raw_server(close_after_reading) as breaking,
            raw_server(Server(http_answer(503))) as failing,
            raw_server(Server()) as good,
            users(dead, breaking, failing, good, timeout=20) as ours,
        ):

            async def call(number: int) -> int:
                with contextlib.suppress(CallError):
                    if number % 3 == 0:
                        async with ours.client.stream("GET", "/x") as answer:
                            await answer.aread()
                            return answer.attempts
                    method = "GET" if number % 3 == 1 else "POST"
                    return (await ours.client.request(method, "/x")).attempts
                return 0

            attempts = await asyncio.gather(*[call(number) for number in range(30)])
            stats = ours.client.stats
            assert stats.calls == 30
            assert stats.failed == attempts.count(0)
            assert len(ours.outcomes) == stats.calls + stats.retried
