"""What Prometheus reads from real service processes, compared with the calls that were made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.protos import echo_pb2, echo_pb2_grpc
from tests.protos.echo_pb2 import EchoRequest
from tests.servers import Consul
from tests.support.processes import Processes, ServiceProcess
from tests.support.waiting import aeventually

SAY = f"/{echo_pb2.DESCRIPTOR.services_by_name['Echo'].full_name}/Say"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(url: str) -> Samples:
    async with httpx2.AsyncClient() as client:
        answer = await client.get(url + "/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parsed(answer.text)


def parsed(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def started(services: Processes, *arguments: str) -> tuple[list[ServiceProcess], ServiceProcess]:
    backs = services.start_all("watched:Back", 2)
    return backs, services.start("watched:Front", *arguments).ready()


async def test_requests_are_counted_exactly(services: Processes) -> None:
    backs, front = started(services)
    async with httpx2.AsyncClient(base_url=front.url) as client:
        for number in (*range(20), 404, 404):
            await client.get(f"/items/{number}")
        for _ in range(3):
            await client.get(f"/nothing/{_}")
        await client.get("/health/live")
        await client.post("/items/1")
        await client.get("/say/hello")
    seen = await scrape(front.url)
    item = {"method": "GET", "route": "/items/{number}"}
    assert value(seen, "meshkit_http_requests_total", **item, status="200") == 22
    timed = "meshkit_http_request_duration_seconds"
    assert value(seen, f"{timed}_count", **item) == 22
    assert value(seen, f"{timed}_bucket", **item, le="+Inf") == 22
    total = value(seen, f"{timed}_sum", **item)
    assert total is not None
    assert 0 < total < 600
    unknown = {"method": "GET", "route": "(none)", "status": "404"}
    assert value(seen, "meshkit_http_requests_total", **unknown) == 3
    requests = [n for (name, _), n in seen.items() if name == "meshkit_http_requests_total"]
    assert sum(requests) == 22 + 3 + 1 + 1  # health, metrics: not counted
    assert value(seen, "meshkit_http_in_flight") == 0

    http = {"service": "back", "transport": "http"}
    assert value(seen, "meshkit_client_calls_total", **http) == 22
    assert value(seen, "meshkit_client_failed_total", **http) == 0
    rpc = {"service": "back", "transport": "grpc"}
    assert value(seen, "meshkit_client_calls_total", **rpc) == 1
    assert value(seen, "meshkit_client_instances", service="back", state="up") == 2
    assert value(seen, "meshkit_client_breaker_state", service="back", state="closed") == 1
    behind = [await scrape(each.url) for each in backs]
    for status, count in (("200", 20), ("404", 2)):
        counts = [
            value(each, "meshkit_http_requests_total", **item, status=status) for each in behind
        ]
        assert sum(each or 0 for each in counts) == count
    said = [value(each, "meshkit_grpc_calls_total", method=SAY, code="OK") for each in behind]
    assert sum(each or 0 for each in said) == 1


async def test_the_service_tells_who_and_how_it_is(services: Processes) -> None:
    front = services.start("watched:Front").ready()
    seen = await scrape(front.url)
    labels = {"service": "front", "instance": front.instance, "version": ""}
    assert value(seen, "meshkit_info", **labels) == 1
    for name in ("meshkit_ready", "meshkit_registered", "meshkit_registry_reachable"):
        assert value(seen, name) == 1
    lag = value(seen, "meshkit_event_loop_lag_seconds")
    assert lag is not None
    assert 0 <= lag < 60
    assert value(seen, "process_open_fds") is not None  # of the default registry


async def test_retries_failures_and_ejections_show(services: Processes) -> None:
    good = services.start("watched:Back").ready()
    bad = services.start("watched:Back", env={"WATCHED_BAD": "1"}).ready()
    front = services.start("watched:Front").ready()
    async with httpx2.AsyncClient(base_url=front.url) as client:
        for _ in range(30):
            assert (await client.get("/flaky")).json() == 200
    seen, at_good, at_bad = [await scrape(each.url) for each in (front, good, bad)]
    flaky = {"method": "GET", "route": "/flaky"}
    failed = value(at_bad, "meshkit_http_requests_total", **flaky, status="503")
    assert failed is not None
    assert failed >= 5  # as many in a row as it takes
    assert value(at_good, "meshkit_http_requests_total", **flaky, status="200") == 30
    http = {"service": "back", "transport": "http"}
    assert value(seen, "meshkit_client_calls_total", **http) == 30
    assert value(seen, "meshkit_client_retries_total", **http) == failed
    assert value(seen, "meshkit_client_attempt_failures_total", **http, reason="503") == failed
    ejections = value(seen, "meshkit_client_ejections_total", service="back", reason="failures")
    assert ejections is not None
    assert ejections >= 1
    left = value(seen, "meshkit_client_retry_budget_left", service="back")
    assert left is not None
    assert 0 < left <= 100 + 30 * 0.2


async def test_who_is_aside_now_shows(services: Processes) -> None:
    services.start("watched:Back").ready()
    bad = services.start("watched:Back", env={"WATCHED_BAD": "1"}).ready()
    front = services.start("watched:Front").ready()

    async def aside() -> bool:
        async with httpx2.AsyncClient(base_url=front.url) as client:
            for _ in range(10):
                await client.get("/flaky")
        seen = await scrape(front.url)
        labels = {"service": "back", "instance": bad.instance, "reason": "failures"}
        one = value(seen, "meshkit_client_aside", **labels) == 1
        return one and value(seen, "meshkit_client_instances", service="back", state="aside") == 1

    await aeventually(aside)


async def test_shed_requests_are_told_apart_and_the_scrape_is_never_shed(
    services: Processes,
) -> None:
    back = services.start("watched:Back", env={"MESHKIT_MAX_CONCURRENCY": "1"}).ready()
    async with httpx2.AsyncClient(base_url=back.url) as client:
        asked = [asyncio.create_task(client.get("/slow")) for _ in range(5)]

        async def all_there() -> bool:
            seen = await scrape(back.url)
            return (
                value(seen, "meshkit_shed_total", transport="http") == 4
                and value(seen, "meshkit_http_in_flight") == 1
            )

        await aeventually(all_there, within=60)
        answers = [each.status_code for each in await asyncio.gather(*asked)]
    assert sorted(answers) == [200, 503, 503, 503, 503]
    seen = await scrape(back.url)
    assert value(seen, "meshkit_shedding_limit", transport="http") == 1
    shed = {"method": "GET", "route": "(none)", "status": "503"}
    assert value(seen, "meshkit_http_requests_total", **shed) == 4


async def test_grpc_calls_are_counted_and_served_on_a_port_of_their_own(
    services: Processes,
) -> None:
    service = services.start("watched:RpcOnly", env={"MESHKIT_METRICS_PORT": "0"}).ready()
    (line,) = [line for line in service.lines if "metrics and health are on" in line]
    found = re.search(r"are on port (\d+)", line)
    assert found
    url = f"http://127.0.0.1:{found[1]}"
    async with grpc.aio.insecure_channel(str(service.facts["grpc"])) as channel:
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(7):
            await stub.Say(EchoRequest(text="hello"))
    seen = await scrape(url)
    assert value(seen, "meshkit_grpc_calls_total", method=SAY, code="OK") == 7
    assert value(seen, "meshkit_grpc_in_flight") == 0
    timed = "meshkit_grpc_call_duration_seconds_count"
    assert value(seen, timed, method=SAY) == 7
    async with httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.get("/anything")).status_code == 404


@pytest.mark.consul
async def test_a_stale_list_and_a_registry_out_of_reach_show(
    make_consul: Callable[..., Consul], services: Processes
) -> None:
    agent = make_consul()
    services.registry = agent.url
    _, front = started(services)
    async with httpx2.AsyncClient(base_url=front.url) as client:
        assert (await client.get("/items/1")).json() == 200
        seen = await scrape(front.url)
        assert value(seen, "meshkit_client_list_stale", service="back") == 0
        assert value(seen, "meshkit_client_list_known", service="back") == 1
        assert value(seen, "meshkit_registry_reachable") == 1
        agent.kill()

        async def stale() -> bool:
            seen = await scrape(front.url)
            age = value(seen, "meshkit_client_list_age_seconds", service="back")
            return (
                value(seen, "meshkit_client_list_stale", service="back") == 1
                and age is not None
                and age > 0
                and value(seen, "meshkit_registry_reachable") == 0
            )

        await aeventually(stale, within=30)
        assert (await client.get("/items/1")).json() == 200
