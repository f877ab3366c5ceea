"""When the pages are there, what they cost, and that nothing secret is on them."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio
import httpx2
import pytest
from prometheus_client import REGISTRY, Counter

from meshkit import ConfigError, MeshService, MissingExtraError, Runtime, get, http_client
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually
from tests.test_public_names import modules_after


class Shop(MeshService):
    name = "shop"

    @get("/items")
    async def items(self) -> str:
        return "items"


class OwnMetrics(Shop):
    name = "own-metrics"

    @get("/metrics")
    async def metrics(self) -> str:
        return "my own"


class Both(Shop, echo_pb2_grpc.EchoServicer):
    name = "both"
    shop = http_client("shop")

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        answer = await self.shop.get("/items")
        return EchoReply(text=answer.text)


@pytest.fixture
def own_counter() -> Iterator[Counter]:
    counter = Counter("baskets", "Baskets that were filled.")
    yield counter
    REGISTRY.unregister(counter)


def running(service: MeshService, registry: str = "memory://pages", **settings: Any) -> Runtime:
    return Runtime(service, registry=registry, drain_delay=0, **settings)


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient() as client:
        yield client


async def test_metrics_of_ones_own_are_on_the_page(
    http: httpx2.AsyncClient, own_counter: Counter
) -> None:
    own_counter.inc(3)
    async with running(Shop()) as runtime:
        page = (await http.get(f"{runtime.http_url}/metrics")).text
    assert "baskets_total 3.0" in page
    assert "meshkit_ready 1.0" in page


async def test_off_is_off(http: httpx2.AsyncClient) -> None:
    async with running(Shop(), metrics="off") as runtime:
        assert (await http.get(f"{runtime.http_url}/metrics")).status_code == 404


async def test_without_the_library_auto_is_off_and_on_says_what_to_install(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    async with running(Shop()) as runtime:
        assert (await http.get(f"{runtime.http_url}/metrics")).status_code == 404
        assert (await http.get(f"{runtime.http_url}/items")).status_code == 200
    with pytest.raises(MissingExtraError, match=r"pip install 'meshkit\[metrics\]'"):
        await running(Shop(), metrics="on").start()


async def test_another_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="metrics"):
        running(Shop(), metrics="sometimes")


async def test_auto_leaves_the_path_to_an_application_that_has_it(
    http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "meshkit"):
        async with running(OwnMetrics()) as runtime:
            assert (await http.get(f"{runtime.http_url}/metrics")).json() == "my own"
    assert "/metrics is the application's own, so meshkit's metrics are off" in caplog.messages


async def test_on_says_that_it_hides_the_applications_own(
    http: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(OwnMetrics(), metrics="on") as runtime:
        assert "meshkit_ready" in (await http.get(f"{runtime.http_url}/metrics")).text
    assert "the application's route /metrics is hidden by meshkit's own" in caplog.messages


async def test_a_port_of_its_own_keeps_the_pages_off_the_services(
    http: httpx2.AsyncClient,
) -> None:
    async with running(Shop(), metrics_port=0) as runtime:
        assert runtime._observation
        url = f"http://127.0.0.1:{runtime._observation.port}"
        await http.get(f"{runtime.http_url}/items")
        for page in ("/metrics", "/debug/mesh"):
            assert (await http.get(runtime.http_url + page)).status_code == 404  # type: ignore[operator]
            assert (await http.get(url + page)).status_code == 200
        text = (await http.get(url + "/metrics")).text
        assert 'meshkit_http_requests_total{method="GET",route="/items",status="200"} 1.0' in text
    with pytest.raises(httpx2.ConnectError):
        await http.get(url + "/metrics")


async def test_the_debug_page_shows_targets_registration_and_limits(
    http: httpx2.AsyncClient,
) -> None:
    async with running(Shop()) as shop, running(Both(), max_concurrency=7) as both:
        await both.mesh.http("shop").get("/items")
        seen = (await http.get(f"{both.http_url}/debug/mesh")).json()
    assert both.instance
    assert seen["instance"]["id"] == both.instance.id
    assert seen["ready"] is True
    registry = {"url": "memory://pages", "reachable": True, "registration": "registered"}
    assert seen["registry"] == registry
    assert seen["shedding"]["http"] == {"in_flight": 0, "limit": 7.0, "refused": 0}
    (target,) = seen["targets"]
    assert target["service"] == "shop"
    assert target["stats"]["http"]["calls"] == 1
    (view,) = target["views"]
    assert shop.instance
    assert [each["id"] for each in view["instances"]] == [shop.instance.id]
    assert view["instances"][0]["called"] is True


async def test_the_debug_page_is_not_there_in_production_unless_asked_for(
    http: httpx2.AsyncClient,
) -> None:
    async with running(Shop(), env="production") as runtime:
        assert (await http.get(f"{runtime.http_url}/debug/mesh")).status_code == 404
    async with running(Shop(), env="production", debug_endpoint=True) as runtime:
        assert (await http.get(f"{runtime.http_url}/debug/mesh")).status_code == 200
    async with running(Shop(), debug_endpoint=False) as runtime:
        assert (await http.get(f"{runtime.http_url}/debug/mesh")).status_code == 404


async def test_no_page_shows_the_registrys_token(http: httpx2.AsyncClient) -> None:
    url = "consul://127.0.0.1:9?token=s3cret"  # nobody listens there
    async with running(Both(), registry=url) as runtime:
        _ = runtime.mesh.http("shop")

        async def noticed() -> bool:
            page = await http.get(f"{runtime.http_url}/debug/mesh")
            (target,) = page.json()["targets"]
            return "127.0.0.1:9" in str(target["error"])

        await aeventually(noticed)
        pages = [
            (await http.get(f"{runtime.http_url}{path}")).text
            for path in ("/metrics", "/debug/mesh")
        ]
    assert "meshkit_registry_reachable 0.0" in pages[0]
    assert "127.0.0.1:9" in pages[1]
    assert not any("s3cret" in page for page in pages)


async def test_calls_from_the_loop_of_grpc_are_seen_too(http: httpx2.AsyncClient) -> None:
    async with running(Shop()), running(Both(), grpc_thread=True) as both:
        assert both.grpc_target
        async with grpc.aio.insecure_channel(both.grpc_target) as channel:
            stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
            for _ in range(3):
                await stub.Say(EchoRequest())
        await both.mesh.http("shop").get("/items")
        page = (await http.get(f"{both.http_url}/metrics")).text
    assert 'meshkit_client_calls_total{service="shop",transport="http"} 4.0' in page


def test_the_library_is_not_imported_before_somebody_asks() -> None:
    loaded = modules_after(
        "import asyncio, sys\n"
        "from meshkit import MeshService, Runtime, get\n"
        "class Shop(MeshService):\n"
        "    name = 'shop'\n"
        "    @get('/items')\n"
        "    async def items(self) -> str: return ''\n"
        "async def main():\n"
        "    async with Runtime(Shop(), registry='memory://x', metrics='on', drain_delay=0): pass\n"
        "asyncio.run(main())"
    )
    assert "meshkit.telemetry.pages" in loaded
    assert "prometheus_client" not in loaded
