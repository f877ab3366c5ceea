"""Traces through three real services, orders -> users -> ledger, with OpenTelemetry's SDK."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.runtime.test_context import ROUTES, Caller
from tests.support.processes import Processes, ServiceProcess
from tests.support.waiting import eventually

NAMES = ("orders", "users", "ledger")
PATIENCE = 20.0
Spans = list[dict[str, Any]]


class Traced:
    """The three services, and what they have written."""

    def __init__(self, services: Processes, file: Path, **env: str) -> None:
        self.file = file
        self.services = services
        self.env = {"MESHKIT_BAGGAGE": "tenant", "TRACE_FILE": str(file), **env}
        self.started = {name: self.start(name) for name in NAMES}
        for each in self.started.values():
            each.ready()

    def start(self, name: str) -> ServiceProcess:
        return self.services.start(f"traced:Traced{name.title()}", env=self.env)

    def spans(self, trace: str) -> Spans:
        if not self.file.exists():
            return []
        found = [json.loads(line) for line in self.file.read_text().splitlines()]
        return [span for span in found if span["trace"] == trace]

    def once(self, trace: str, count: int) -> Spans:
        """Return the spans of a trace, once there are so many."""

        def there() -> Spans | None:
            found = self.spans(trace)
            return found if len(found) >= count else None

        found = eventually(there, within=PATIENCE)
        assert found
        return found


def new_trace(flags: str = "01") -> tuple[str, dict[str, str]]:
    trace = uuid.uuid4().hex
    return trace, {"traceparent": f"00-{trace}-00f067aa0ba902b7-{flags}"}


async def test_one_trace_through_all_with_the_right_parents(
    services: Processes, tmp_path: Path
) -> None:
    traced = Traced(services, tmp_path / "spans")
    caller = Caller(traced.started["orders"])
    for route in ROUTES:
        trace, headers = new_trace()
        headers["baggage"] = "tenant=Am%C3%A9lie,secret=hush"
        found, _ = await caller.call(route, "look", headers)
        spans = traced.once(trace, 8)  # a server's and one of its own in each, two calls
        # the last one in, from the outside inwards
        chain, parent = [], "00f067aa0ba902b7"
        for _ in range(8):
            (span,) = [each for each in spans if each["parent"] == parent]
            chain.append((span["service"], span["kind"]))
            parent = span["id"]
        assert chain == [
            *(("orders", kind) for kind in ("SERVER", "INTERNAL", "CLIENT")),
            *(("users", kind) for kind in ("SERVER", "INTERNAL", "CLIENT")),
            *(("ledger", kind) for kind in ("SERVER", "INTERNAL")),
        ], route
        assert len(spans) == 8, route  # nobody else has made a span, FastAPI neither
        assert {span["scope"] for span in spans} == {"meshkit", "own"}
        assert [span["remote"] for span in spans if span["kind"] == "SERVER"] == [True] * 3
        # What the handlers, logs and further services go by is the same.
        server = next(s for s in spans if (s["service"], s["kind"]) == ("ledger", "SERVER"))
        assert found["traceparent"] == f"00-{trace}-{server['id']}-01"
        assert found["baggage"] == found["seen"] == {"tenant": "Amélie"}
        for span, transport in zip(
            sorted(
                (s for s in spans if s["kind"] == "SERVER"), key=lambda s: NAMES.index(s["service"])
            ),
            route.split(","),
            strict=True,
        ):
            if transport == "http":
                assert span["name"] == "GET /go"
                assert span["attributes"]["http.route"] == span["attributes"]["url.path"] == "/go"
                assert span["attributes"]["http.response.status_code"] == 200
            else:
                assert span["attributes"]["rpc.method"] == span["name"]
                assert span["attributes"]["rpc.response.status_code"] == "OK"
    await caller.close()


async def test_a_trace_that_is_not_sampled_stays_so(services: Processes, tmp_path: Path) -> None:
    traced = Traced(services, tmp_path / "spans")
    caller = Caller(traced.started["orders"])
    for route in ROUTES:
        trace, headers = new_trace("00")
        found, _ = await caller.call(route, "look", headers)
        assert found["traceparent"].startswith(f"00-{trace}-")
        assert found["traceparent"].endswith("-00")
        assert "00f067aa0ba902b7" not in found["traceparent"]
        assert traced.spans(trace) == []
    # One that was not begun by the caller is begun by the first service, and sampled there.
    found, _ = await caller.call(ROUTES[0], "look", {})
    assert len(traced.once(found["traceparent"][3:35], 8)) == 8
    await caller.close()


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_the_attempt_on_a_killed_instance_is_to_be_seen(
    services: Processes, tmp_path: Path, transport: str
) -> None:
    traced = Traced(services, tmp_path / "spans", MESHKIT_BALANCER="round_robin")
    second = traced.start("ledger")
    second.ready()
    users = Caller(traced.started["users"])
    for _ in range(6):  # both are known, and connected to
        await users.call(f"http,{transport}", "look", new_trace()[1])
    killed = second.facts["instance"]
    second.send(signal.SIGSTOP)  # so that calls are under way to it when it is killed
    begun = [new_trace() for _ in range(4)]
    calls = [asyncio.ensure_future(users.call(f"http,{transport}", "look", h)) for _, h in begun]
    await asyncio.sleep(0.2)
    second.send(signal.SIGKILL)
    seen: Spans = []
    for (trace, _), ended in zip(begun, calls, strict=True):
        found, _ = await ended
        assert found["service"] == "ledger"
        spans = traced.once(trace, 5)
        (call,) = [span for span in spans if span["kind"] == "CLIENT"]
        assert call["status"] == "UNSET"
        if call["events"]:
            seen.append(call)
    assert seen
    first, last = seen[0]["events"][0], seen[0]["events"][-1]
    assert first["meshkit.attempt.kind"] == "first"
    assert first["meshkit.attempt.outcome"] not in ("200", "OK")
    assert last["meshkit.attempt.kind"] in ("retry", "hedge")
    assert last["meshkit.attempt.outcome"] in ("200", "OK")
    assert first["meshkit.instance.id"] != last["meshkit.instance.id"]
    assert seen[0]["attributes"]["meshkit.instance.id"] == last["meshkit.instance.id"]
    assert first["meshkit.instance.id"] == killed
    await users.close()


async def test_durations_by_route_and_a_span_of_a_failed_request(
    services: Processes, tmp_path: Path
) -> None:
    traced = Traced(services, tmp_path / "spans")
    ledger, users = traced.started["ledger"], Caller(traced.started["users"])
    trace, headers = new_trace()
    async with httpx2.AsyncClient(base_url=ledger.url) as client:
        assert (await client.get("/broken/7", headers=headers)).status_code == 500
        for transport in ("http", "grpc"):
            await users.call(f"http,{transport}", "look", {})
        points = (await client.get("/points")).json()
        mine = (await users.http.get("/points")).json()
    (span,) = traced.once(trace, 1)
    assert (span["name"], span["status"]) == ("GET /broken/{number}", "ERROR")
    assert span["attributes"]["error.type"] == "RuntimeError"
    assert span["attributes"]["url.path"] == "/broken/7"
    assert [event["exception.message"] for event in span["events"]] == ["on purpose"]
    by_name = {(point["name"], point["attributes"].get("http.route")): point for point in points}
    broken = by_name["http.server.request.duration", "/broken/{number}"]
    assert (broken["count"], broken["attributes"]["http.response.status_code"]) == (1, 500)
    assert by_name["http.server.request.duration", "/go"]["count"] == 1
    assert by_name["rpc.server.call.duration", None]["count"] == 1
    called = {point["name"]: point for point in mine if "client" in point["name"]}
    for name in ("http.client.request.duration", "rpc.client.call.duration"):
        assert called[name]["count"] == 1
        assert called[name]["attributes"]["server.address"] == "ledger"
    assert {point["scope"] for point in points + mine} == {"meshkit"}
    await users.close()


async def test_off_means_off_whoever_has_set_a_provider(
    services: Processes, tmp_path: Path
) -> None:
    traced = Traced(services, tmp_path / "spans", MESHKIT_OTEL="off")
    caller = Caller(traced.started["orders"])
    trace, headers = new_trace()
    found, _ = await caller.call("grpc,grpc,grpc", "look", headers)
    assert found["traceparent"] == headers["traceparent"]
    spans = traced.once(trace, 0) if traced.spans(trace) else []
    assert not [span for span in spans if span["scope"] == "meshkit"]
    await caller.close()


async def test_on_sends_to_where_the_variables_say(services: Processes) -> None:
    env = {"MESHKIT_OTEL": "on", "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"}
    ledger = services.start("chain:Ledger", env={**env, "OTEL_BSP_SCHEDULE_DELAY": "50"})
    caller = Caller(ledger.ready())
    await caller.call("http", "look", new_trace()[1])
    eventually(lambda: '"name": "GET /go"' in ledger.output, within=PATIENCE)
    assert '"service.name": "ledger"' in ledger.output
    await caller.close()


def test_an_exporter_that_is_not_known_is_named_in_one_line(services: Processes) -> None:
    env = {"MESHKIT_OTEL": "on", "OTEL_TRACES_EXPORTER": "zipkin"}
    ledger = services.start("chain:Ledger", env=env)
    assert ledger.wait() != 0
    assert "OTEL_TRACES_EXPORTER=zipkin is not known here" in ledger.output
    assert "Traceback" not in ledger.output
