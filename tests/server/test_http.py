"""The HTTP server of a running service: identity, open and closed doors, the end of calls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from meshkit import MeshService, Runtime, StartError, get, health_check, post, websocket
from meshkit.identity import DRAINING, INSTANCE, SERVICE, TARGET
from tests.support.waiting import aeventually

REGISTRY = "memory://http-server"


class Shop(MeshService):
    name = "shop"

    def __init__(self) -> None:
        self.broken = False
        self.calls = 0

    @get("/items/{number}")
    async def read(self, number: int) -> int:
        self.calls += 1
        if number == 404:
            raise HTTPException(404, "no such item")
        if number == 500:
            raise RuntimeError("a bug")
        return number

    @post("/items")
    async def add(self) -> None: ...

    @get("/slow")
    async def slow(self) -> str:
        await asyncio.sleep(1)
        return "done"

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    @health_check
    async def database(self) -> None:
        if self.broken:
            raise ConnectionError("refused")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def runtime(shop: Shop) -> AsyncIterator[Runtime]:
    async with Runtime(shop, registry=REGISTRY, check_interval=0.1, drain_delay=0) as running:
        yield running


@pytest.fixture
async def http(runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    assert runtime.http_url
    async with httpx2.AsyncClient(base_url=runtime.http_url, timeout=10) as client:
        yield client


def instance_id(runtime: Runtime) -> str:
    assert runtime.instance
    return runtime.instance.id


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/items/1", 200),
        ("HEAD", "/items/1", 405),
        ("GET", "/items/404", 404),
        ("GET", "/items/x", 422),
        ("GET", "/items/500", 500),
        ("GET", "/nowhere", 404),
        ("DELETE", "/items", 405),
        ("GET", "/openapi.json", 200),
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
        ("HEAD", "/health/ready", 200),
    ],
)
async def test_every_answer_names_the_instance(
    runtime: Runtime, http: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.headers.get_list(SERVICE) == ["shop"]
    assert answer.headers.get_list(INSTANCE) == [instance_id(runtime)]
    assert "server" not in answer.headers
    assert DRAINING not in answer.headers
    if method == "HEAD":
        assert answer.content == b""


async def test_a_request_meant_for_somebody_else_is_refused_unhandled(
    runtime: Runtime, http: httpx2.AsyncClient, shop: Shop
) -> None:
    answer = await http.get("/items/1", headers={TARGET: "shop-gone-8000-abc123"})
    assert answer.status_code == 421
    assert answer.json() == {"detail": f"this is {instance_id(runtime)}, not shop-gone-8000-abc123"}
    assert answer.headers[INSTANCE] == instance_id(runtime)
    assert shop.calls == 0
    answer = await http.get("/items/1", headers={TARGET: instance_id(runtime)})
    assert (answer.status_code, shop.calls) == (200, 1)
    # Health answers everybody: whoever asks looks at an address.
    assert (await http.get("/health/live", headers={TARGET: "somebody"})).status_code == 200


async def test_readiness_shows_each_check(
    runtime: Runtime, http: httpx2.AsyncClient, shop: Shop
) -> None:
    answer = await http.get("/health/ready")
    body = answer.json()
    latency = body["checks"]["database"].pop("latency_ms")
    assert latency >= 0
    assert body.pop("loop_lag_s") >= 0
    assert body == {
        "status": "ready",
        "service": "shop",
        "instance": instance_id(runtime),
        "registry": "registered",
        "checks": {"database": {"ok": True, "error": None}},
    }
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"

    shop.broken = True

    async def not_ready() -> bool:
        return (await http.get("/health/ready")).status_code == 503

    await aeventually(not_ready)
    body = (await http.get("/health/ready")).json()
    assert body["status"] == "not ready"
    assert body["checks"]["database"]["ok"] is False
    assert body["checks"]["database"]["error"] == "ConnectionError: refused"
    assert (await http.get("/health/live")).json() == {"status": "live"}
    # Not ready is for the registry to say; who calls all the same is served.
    assert (await http.get("/items/1")).status_code == 200


async def test_before_the_doors_open_only_health_is_answered() -> None:
    seen: dict[str, tuple[int, Any]] = {}

    class Slow(Shop):
        async def on_start(self) -> None:
            assert starting._servers.http
            url = f"http://127.0.0.1:{starting._servers.http.port}"
            async with httpx2.AsyncClient(base_url=url, timeout=10) as http:
                for path in ("/items/1", "/health/live", "/health/ready"):
                    answer = await http.get(path)
                    seen[path] = (answer.status_code, answer.json())
                assert (await http.get("/items/1")).headers["retry-after"] == "1"
                assert INSTANCE not in answer.headers
            with pytest.raises(InvalidStatus) as refused:
                async with connect(f"{url.replace('http', 'ws')}/talk"):
                    pass
            seen["/talk"] = (refused.value.response.status_code, None)

    service = Slow()
    starting = Runtime(service, registry=REGISTRY, drain_delay=0)
    async with starting:
        pass
    assert seen["/items/1"] == (503, {"detail": "starting"})
    assert seen["/health/live"] == (200, {"status": "live"})
    status, body = seen["/health/ready"]
    assert (status, body["status"], body["instance"]) == (503, "starting", None)
    assert seen["/talk"] == (503, None)
    assert service.calls == 0


async def test_a_websocket_is_served_and_refused_like_a_request(runtime: Runtime) -> None:
    assert runtime.http_url
    url = runtime.http_url.replace("http", "ws", 1) + "/talk"
    async with connect(url) as talk:
        await talk.send("hello")
        assert await talk.recv() == "hello"
    with pytest.raises(InvalidStatus):
        async with connect(url, additional_headers={TARGET: "somebody"}):
            pass


async def test_a_leaving_instance_says_so_and_hangs_up() -> None:
    runtime = Runtime(Shop(), registry=REGISTRY, drain_delay=2)
    await runtime.start()
    async with httpx2.AsyncClient(base_url=str(runtime.http_url), timeout=10) as http:
        assert "connection" not in (await http.get("/items/1")).headers
        stopping = asyncio.create_task(runtime.stop())

        async def draining() -> bool:
            return DRAINING in (await http.get("/health/live")).headers

        await aeventually(draining, within=2)
        for path in ("/items/1", "/items/404", "/items/500", "/health/live"):
            answer = await http.get(path)
            assert answer.headers[DRAINING] == answer.headers[INSTANCE]
            assert answer.headers["connection"] == "close"
            assert answer.headers[INSTANCE] == instance_id(runtime)
        answer = await http.get("/health/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, "draining")
        await stopping
        with pytest.raises(httpx2.ConnectError):
            await http.get("/items/1")


async def test_answers_do_not_meet_nagles_algorithm(
    runtime: Runtime, http: httpx2.AsyncClient
) -> None:
    """Without TCP_NODELAY each answer on a kept connection waits 40 ms for an acknowledgement."""
    await http.get("/items/1")
    assert runtime._servers.http
    (listening,) = runtime._servers.http.servers[0].sockets
    assert listening.proto == socket.IPPROTO_TCP
    connections: set[Any] = runtime._servers.http.server_state.connections
    assert connections
    for connection in connections:
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_the_date_stays_current_and_headers_are_not_doubled(
    http: httpx2.AsyncClient,
) -> None:
    first = await http.get("/items/1")

    async def later() -> bool:
        return (await http.get("/items/1")).headers["date"] != first.headers["date"]

    await aeventually(later, every=0.2)
    answer = await http.get("/items/1")
    assert len(answer.headers.get_list("date")) == 1
    assert len(answer.headers.get_list(INSTANCE)) == 1


async def test_a_start_that_is_undone_complains_of_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Shop):
        async def on_start(self) -> None:
            raise OSError("no database")

    with (
        caplog.at_level(logging.INFO),
        pytest.raises(
            StartError, match=r"^on_start of Failing failed: OSError: no data.*\(.*:\d+\)$"
        ),
    ):
        await Runtime(Failing(), registry=REGISTRY).start()
    assert [each.getMessage() for each in caplog.records if each.levelno > logging.INFO] == []


async def no_reason(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed"})


async def with_reason(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the cache is cold"})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no cache"), "RuntimeError: no cache"),
        (RuntimeError("first line\nsecond"), "RuntimeError: first line second"),
        (KeyError("DSN"), "KeyError: 'DSN'"),
        (RuntimeError(), "RuntimeError"),
        (ExceptionGroup("two", [OSError("a")]), r"ExceptionGroup: two (1 sub-exception)"),
        (no_reason, "no reason given"),
        (with_reason, "the cache is cold"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_a_failing_lifespan_says_why(error: Any, reason: str) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if isinstance(error, Exception):
            raise error
        yield

    app = FastAPI(lifespan=lifespan)
    if not isinstance(error, Exception):
        app.router.lifespan = error  # type: ignore[method-assign]
    with pytest.raises(StartError) as caught:
        await Runtime(MeshService.from_app(app, name="plain"), registry=REGISTRY).start()
    said = re.escape(f"the application's lifespan failed: {reason}")
    assert re.fullmatch(said + r"( \(\S+test_http\.py:\d+\))?", str(caught.value))


async def test_middleware_and_mounted_apps_work_as_in_fastapi() -> None:
    from fastapi.middleware.cors import CORSMiddleware

    class Wrapped(Shop):
        pass

    service, mounted = Wrapped(), FastAPI()

    @mounted.get("/deep")
    async def deep() -> str:
        return "deep"

    service.app.add_middleware(CORSMiddleware, allow_origins=["http://a"])
    service.app.mount("/sub", mounted)
    runtime = Runtime(service, registry=REGISTRY, drain_delay=0)
    async with runtime, httpx2.AsyncClient() as http:
        answer = await http.get(f"{runtime.http_url}/sub/deep", headers={"origin": "http://a"})
    assert answer.json() == "deep"
    assert answer.headers["access-control-allow-origin"] == "http://a"
    assert answer.headers[INSTANCE] == instance_id(runtime)
