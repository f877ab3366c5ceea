"""What an outgoing HTTP call takes along from the call being handled."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator

import pytest

from meshkit import Mesh, Snapshot, context
from meshkit.discovery.balancing import Outcome
from meshkit.errors import CallTimeout, NoInstances
from meshkit.propagation import DEADLINE, NAMES, REQUEST
from meshkit.registry import open_registry
from tests.client.http_servers import (
    Received,
    Server,
    close_after_reading,
    never_answer,
    raw_server,
    users,
)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def carried(received: Received) -> dict[str, str]:
    pairs = [pair for pair in received.headers if pair[0] in NAMES]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def limit(received: Received) -> int:
    return int(carried(received)[DEADLINE])


async def test_outside_of_a_call_only_the_own_time_is_sent() -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        await ours.client.get("/x", timeout=5)
    assert 2000 < limit(server.received[0]) <= 5000
    assert set(carried(server.received[0])) == {DEADLINE}


async def test_a_call_takes_the_context_along() -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        with context.use(
            request_id="job-7",
            traceparent=TRACEPARENT,
            tracestate="rojo=1",
            baggage={"tenant": "Amélie"},
        ):
            await ours.client.get("/x")
            await ours.client.post("/x", json=1)
            async with ours.client.stream("GET", "/x"):
                pass
    first, second, streamed = [carried(each) for each in server.received]
    del first[DEADLINE], second[DEADLINE]
    assert first == second == streamed
    assert first == {
        REQUEST: "job-7",
        "traceparent": TRACEPARENT,
        "tracestate": "rojo=1",
        "baggage": "tenant=Am%C3%A9lie",
    }


async def test_headers_of_the_caller_win() -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        with context.use(request_id="job-7", traceparent=TRACEPARENT):
            await ours.client.get("/x", headers={"X-Request-Id": "mine", "x-meshkit-deadline": "1"})
    found = carried(server.received[0])
    assert (found[REQUEST], found["traceparent"]) == ("mine", TRACEPARENT)
    assert int(found[DEADLINE]) > 1000


async def test_the_deadline_shortens_what_a_call_may_take_and_never_lengthens_it() -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        with context.deadline_in(9):
            await ours.client.get("/x", timeout=15)
            await ours.client.get("/x", timeout=3)
            async with ours.client.stream("GET", "/x", timeout=3):
                pass
    inherited, own, streamed = [limit(each) for each in server.received]
    assert 4000 < inherited <= 9000
    assert 1000 < own <= 3000
    assert 4000 < streamed <= 9000  # the timeout is for its pieces


async def test_what_is_left_shrinks_from_attempt_to_attempt() -> None:
    server = Server()
    async with (
        raw_server(close_after_reading) as broken,
        raw_server(server) as whole,
        users(broken, whole) as ours,
    ):
        with context.deadline_in(9):
            await ours.client.get("/x")
        assert [outcome for _, outcome in ours.outcomes] == [Outcome.FAILED, Outcome.OK]
    assert 4000 < limit(server.received[0]) < 9000


async def test_a_call_ends_with_the_deadline_and_says_whose_it_was() -> None:
    async with raw_server(never_answer) as endpoint, users(endpoint) as ours:
        began = time.monotonic()
        with pytest.raises(CallTimeout) as late, context.deadline_in(0.25):
            await ours.client.get("/x")
        assert time.monotonic() - began < 15
    assert str(late.value).startswith(
        "users: GET /x: no answer within the 0.25 s that were left to the call being handled: "
    )


async def test_a_call_with_nothing_left_fails_without_being_sent() -> None:
    server = Server()
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        with context.deadline_in(-1):
            for _ in range(2):
                with pytest.raises(CallTimeout) as late:
                    await ours.client.get("/x?token=hush")
            with pytest.raises(CallTimeout, match="not sent, as the deadline of the call being"):
                async with ours.client.stream("GET", "/x"):
                    pytest.fail("nothing was sent, so no block")
        assert str(late.value) == (
            "users: GET /x: not sent, as the deadline of the call being handled has passed"
        )
        assert ours.outcomes == []
        assert ours.client.stats.failed == 3
        await ours.client.get("/x")
    assert len(server.received) == 1


async def test_following_a_service_is_no_part_of_the_call_that_needed_it_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = open_registry(f"memory://{uuid.uuid4()}")
    watch, seen = registry.watch, []

    async def watched(service: str) -> AsyncIterator[Snapshot]:
        seen.append(context.current())
        async for snapshot in watch(service):
            yield snapshot

    monkeypatch.setattr(registry, "watch", watched)
    async with Mesh(registry) as mesh:
        with context.use(request_id="job-7"), pytest.raises(NoInstances):
            await mesh.http("users").get("/x")
    assert seen == [context.OUTSIDE]
