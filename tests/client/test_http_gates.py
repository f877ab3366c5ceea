"""Circuit breaker and bulkhead in front of HTTP calls."""

from __future__ import annotations

import asyncio

import pytest

from meshkit.client.breaker import BreakerPolicy
from meshkit.client.bulkhead import BulkheadPolicy
from meshkit.errors import BreakerOpen, BulkheadFull, NoInstances
from tests.client.http_servers import (
    Server,
    close_after_reading,
    http_answer,
    never_answer,
    raw_server,
    users,
)

BREAKER = BreakerPolicy(failures=0.5, volume=4, pause=0.3, probes=1)


async def test_a_service_that_fails_is_not_called_until_it_may_have_recovered() -> None:
    server = Server(http_answer(500))
    async with raw_server(server) as endpoint, users(endpoint, breaker=BREAKER) as ours:
        for _ in range(4):
            assert (await ours.client.get("/x")).status_code == 500
        with pytest.raises(BreakerOpen, match=r"^users: not called, as too many calls failed"):
            await ours.client.get("/x")
        with pytest.raises(BreakerOpen):
            async with ours.client.stream("GET", "/x"):
                pytest.fail("not called")
        assert len(server.received) == 4
        assert (ours.client.stats.calls, ours.client.stats.failed) == (6, 2)
        server.answer = http_answer(200, b"ok")
        await asyncio.sleep(0.35)
        assert (await ours.client.get("/x")).text == "ok"
        async with ours.client.stream("GET", "/x") as answer:
            assert await answer.aread() == b"ok"


async def test_retries_are_within_a_call_and_errors_count() -> None:
    async with (
        raw_server(Server(http_answer(503))) as bad,
        raw_server(Server()) as good,
        raw_server(close_after_reading) as breaking,
        users(bad, good, breaker=BREAKER) as ours,
        users(breaking, breaker=BREAKER) as theirs,
    ):
        for _ in range(10):
            assert (await ours.client.get("/x")).status_code == 200
        for _ in range(4):
            with pytest.raises(Exception, match="broke the connection"):
                await theirs.client.post("/x", content=b"body")
        with pytest.raises(BreakerOpen):
            await theirs.client.post("/x", content=b"body")


async def test_that_nobody_is_there_does_not_open_it() -> None:
    async with users(breaker=BREAKER) as ours:
        for _ in range(20):
            with pytest.raises(NoInstances):
                await ours.client.get("/x")


async def test_calls_beyond_the_bulkhead_fail_at_once_or_wait() -> None:
    policy = BulkheadPolicy(concurrent=1, queue=1, wait=20)
    async with raw_server(never_answer) as hung, users(hung, bulkhead=policy, timeout=60) as ours:
        bulkhead = ours.client.guards.bulkhead(policy)
        first, second = (asyncio.create_task(ours.client.get("/x")) for _ in range(2))
        async with asyncio.timeout(20):
            while bulkhead.waiting < 1:
                await asyncio.sleep(0.005)
        with pytest.raises(BulkheadFull, match=r"^users: not called, as 1 calls are under way"):
            await ours.client.get("/x")
        for task in (second, first):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (bulkhead.busy, bulkhead.waiting) == (0, 0)


async def test_a_stream_keeps_its_place_until_it_is_closed() -> None:
    policy = BulkheadPolicy(concurrent=1)
    async with raw_server(Server()) as endpoint, users(endpoint, bulkhead=policy) as ours:
        async with ours.client.stream("GET", "/x"):
            with pytest.raises(BulkheadFull):
                await ours.client.get("/x")
        assert (await ours.client.get("/x")).text == "ok"


async def test_a_stream_tells_the_breaker_as_soon_as_it_begins() -> None:
    """It may last for hours, during which a half-open breaker would let nobody through."""
    server = Server(http_answer(500))
    async with raw_server(server) as endpoint, users(endpoint, breaker=BREAKER) as ours:
        for _ in range(4):
            await ours.client.get("/x")
        server.answer = http_answer(200, b"ok")
        await asyncio.sleep(0.35)
        async with ours.client.stream("GET", "/x"):
            assert (await ours.client.get("/x")).text == "ok"


async def test_clients_of_a_service_share_them() -> None:
    async with raw_server(Server()) as endpoint, users(endpoint) as ours:
        from meshkit import Mesh

        async with Mesh(f"static://users={endpoint}") as mesh:
            policy = BulkheadPolicy(concurrent=1)
            one = mesh.http("users", bulkhead=policy)
            other = mesh.http("users", bulkhead=policy, timeout=3)
            assert one is not other
            assert one.guards is other.guards is mesh.guards("users")
            async with one.stream("GET", "/x"):
                with pytest.raises(BulkheadFull):
                    await other.get("/x")
        assert (await ours.client.get("/x")).text == "ok"
