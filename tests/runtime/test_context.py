"""The context through three real services, orders -> users -> ledger, over HTTP and gRPC mixed."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import grpc
import grpc.aio
import httpx2
import pytest

from meshkit.propagation import DEADLINE, REQUEST
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoRequest
from tests.support.processes import Processes, ServiceProcess
from tests.support.waiting import eventually

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NAMES = ("orders", "users", "ledger")
# How the outside calls orders, orders users, and users ledger.
ROUTES = ("http,http,http", "http,http,grpc", "http,grpc,http", "grpc,http,grpc", "grpc,grpc,grpc")
SLACK = 10.0  # of a busy machine; the last handler would hang for a minute


@pytest.fixture
def chain(services: Processes) -> dict[str, ServiceProcess]:
    env = {"MESHKIT_BAGGAGE": "tenant"}
    started = {name: services.start(f"chain:{name.title()}", env=env) for name in NAMES}
    for each in started.values():
        each.ready()
    return started


class Caller:
    """Calls orders as a stranger does, with libraries that know nothing of meshkit."""

    def __init__(self, orders: ServiceProcess) -> None:
        self.http = httpx2.AsyncClient(base_url=orders.url, timeout=40)
        self.channel = grpc.aio.insecure_channel(orders.facts["grpc"])
        self.stub: Any = echo_pb2_grpc.EchoStub(self.channel)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self.http.aclose()
        await self.channel.close()

    async def call(
        self, route: str, mode: str, headers: dict[str, str], milliseconds: int = 30_000
    ) -> tuple[Any, str | None]:
        """Return what the last service saw (None after a timeout), and the request id answered."""
        first, _, hops = route.partition(",")
        if first == "http":
            headers = {**headers, DEADLINE: str(milliseconds)}
            answer = await self.http.get(
                "/go", params={"hops": hops, "mode": mode}, headers=headers
            )
            assert answer.status_code in (200, 504), answer.text
            found = answer.json() if answer.status_code == 200 else None
            return found, answer.headers.get(REQUEST)
        call = self.stub.Say(
            EchoRequest(text=f"{hops} {mode}"),
            timeout=milliseconds / 1000,
            metadata=tuple(headers.items()),
        )
        request_id = (await call.trailing_metadata()).get(REQUEST)
        if await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return None, request_id
        return json.loads((await call).text), request_id


def notes(process: ServiceProcess, request_id: str) -> list[dict[str, Any]]:
    """Return the log lines that a service's handler wrote for one request."""
    found = [json.loads(line) for line in list(process.lines) if line.startswith("{")]
    return [
        each
        for each in found
        if each.get("logger") == "chain" and each.get("request_id") == request_id
    ]


def noted(process: ServiceProcess, request_id: str, count: int) -> list[dict[str, Any]]:
    """The same, once there are so many."""

    def all_there() -> list[dict[str, Any]] | None:
        found = notes(process, request_id)
        return found if len(found) >= count else None

    found = eventually(all_there, within=SLACK)
    assert found
    return found


async def test_what_the_first_is_given_arrives_at_the_last(
    chain: dict[str, ServiceProcess],
) -> None:
    caller = Caller(chain["orders"])
    for route in ROUTES:
        request_id = f"job-{uuid.uuid4()}"
        headers = {
            REQUEST: request_id,
            "traceparent": TRACEPARENT,
            "tracestate": "rojo=1,congo=2",
            "baggage": "tenant=Am%C3%A9lie,secret=hush",
        }
        found, answered = await caller.call(route, "look", headers)
        left = found.pop("left")
        assert found == {
            "service": "ledger",
            "request_id": request_id,
            "traceparent": TRACEPARENT,
            "tracestate": "rojo=1,congo=2",
            "baggage": {"tenant": "Amélie"},
        }, route
        assert answered == request_id
        assert 10 < left <= 31
        for name in NAMES:
            (line,) = noted(chain[name], request_id, 1)
            assert line["trace_id"] == TRACEPARENT[3:35]
    await caller.close()


async def test_a_stranger_who_brings_nothing_gets_an_id_that_all_services_share(
    chain: dict[str, ServiceProcess],
) -> None:
    caller = Caller(chain["orders"])
    ids = set()
    for route in ROUTES:
        found, answered = await caller.call(route, "look", {})
        assert found["request_id"] == answered
        assert (found["traceparent"], found["baggage"]) == ("", {})
        ids.add(answered)
    assert len(ids) == len(ROUTES)
    await caller.close()


async def test_a_deadline_at_the_first_ends_the_work_of_all_three(
    chain: dict[str, ServiceProcess],
) -> None:
    caller = Caller(chain["orders"])
    for route in ROUTES:  # connections and lists are there
        await caller.call(route, "look", {})
    for route in ROUTES:
        request_id, began = await hanging(caller, chain, route)
        for name in NAMES:
            start, end = noted(chain[name], request_id, 2)
            assert start["message"] == "began"
            # Its own call may end a moment before it is cancelled itself; nothing else ends it.
            assert end["message"].startswith(("cancelled", "timeout: ")), route
            assert name != "ledger" or end["message"] == "cancelled"
            assert 0.2 < end["time"] - began < SLACK, f"{name}: {route}"
    await caller.close()


async def hanging(
    caller: Caller, chain: dict[str, ServiceProcess], route: str
) -> tuple[str, float]:
    """Make a call of 300 ms that hangs in the last service; return its id and when it began."""
    for _ in range(10):
        request_id, began = f"job-{uuid.uuid4()}", time.time()
        found, _ = await caller.call(route, "hang", {REQUEST: request_id}, milliseconds=300)
        assert found is None
        assert time.time() - began < SLACK
        await asyncio.sleep(0.2)
        if notes(chain["ledger"], request_id):  # a busy machine may not get there in time
            return request_id, began
    pytest.fail(f"no call reached the last service within 300 ms: {route}")


async def test_a_service_may_give_less_time_to_what_it_calls(
    chain: dict[str, ServiceProcess],
) -> None:
    caller = Caller(chain["orders"])
    for route in ROUTES:
        request_id = f"job-{uuid.uuid4()}"
        found, _ = await caller.call(route, "short", {REQUEST: request_id})
        assert "that were left to the call being handled" in found["timeout"]
        assert 10 < found["left"] <= 31
        assert noted(chain["ledger"], request_id, 2)[-1]["message"] == "cancelled"
        assert [each["message"] for each in notes(chain["users"], request_id)] == ["began"]
    await caller.close()


async def test_a_caller_who_gives_up_ends_the_work_of_all_three_over_grpc(
    chain: dict[str, ServiceProcess],
) -> None:
    caller = Caller(chain["orders"])
    request_id = f"job-{uuid.uuid4()}"
    call = caller.stub.Say(
        EchoRequest(text="grpc,grpc hang"), metadata=((REQUEST, request_id),), timeout=60
    )
    while not notes(chain["ledger"], request_id):
        await asyncio.sleep(0.02)
    call.cancel()
    for name in NAMES:
        assert noted(chain[name], request_id, 2)[-1]["message"] == "cancelled"
    await caller.close()
