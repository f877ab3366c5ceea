"""Shedding over HTTP: what is refused and how, what counts and what never does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from meshkit import MeshService, Runtime, get, post, websocket
from meshkit.identity import INSTANCE, SHED
from tests.support.waiting import aeventually

REGISTRY = "memory://shedding-http"


class Desk(MeshService):
    name = "desk"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = 0

    @get("/wait")
    async def wait(self) -> str:
        self.waiting += 1
        await self.gate.wait()
        return "done"

    @get("/broken")
    async def broken(self) -> str:
        raise RuntimeError("a bug")

    @get("/stream")
    async def stream(self) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await self.gate.wait()
            yield b"last"

        return StreamingResponse(chunks())

    @post("/upload")
    async def upload(self, request: Request) -> int:
        self.waiting += 1
        return sum([len(chunk) async for chunk in request.stream()])

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        await socket.close()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def runtime(desk: Desk) -> AsyncIterator[Runtime]:
    async with Runtime(desk, registry=REGISTRY, max_concurrency=1, drain_delay=0) as running:
        yield running


@pytest.fixture
async def http(runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    assert runtime.http_url
    async with httpx2.AsyncClient(base_url=runtime.http_url, timeout=20) as client:
        yield client


@pytest.fixture
async def full(desk: Desk, http: httpx2.AsyncClient) -> AsyncIterator[None]:
    """One request is under way, the only one that may be."""
    request = asyncio.create_task(http.get("/wait"))

    async def waits() -> bool:
        return desk.waiting == 1

    await aeventually(waits)
    yield
    desk.gate.set()
    assert (await request).status_code == 200


async def test_a_request_too_many_is_refused_so_that_callers_know_it_was_not_handled(
    full: None, http: httpx2.AsyncClient, runtime: Runtime, desk: Desk
) -> None:
    answer = await http.get("/wait")
    assert answer.status_code == 503
    assert runtime.instance
    assert answer.headers[SHED] == answer.headers[INSTANCE] == runtime.instance.id
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["detail"].startswith("overloaded")
    assert desk.waiting == 1


async def test_health_is_answered_however_full_it_is(full: None, http: httpx2.AsyncClient) -> None:
    assert (await http.get("/health/live")).status_code == 200
    assert (await http.get("/health/ready")).status_code == 200


async def test_a_websocket_too_many_is_refused_with_the_same_answer(
    full: None, runtime: Runtime
) -> None:
    assert runtime.http_url
    with pytest.raises(InvalidStatus) as caught:
        await connect(runtime.http_url.replace("http", "ws") + "/talk")
    assert caught.value.response.status_code == 503
    assert SHED in caught.value.response.headers


@pytest.mark.parametrize("path", ["/broken", "/nowhere"])
async def test_what_fails_counts_no_longer(http: httpx2.AsyncClient, path: str) -> None:
    for _ in range(3):
        assert (await http.get(path)).status_code in (404, 500)


async def test_a_stream_counts_until_it_begins(http: httpx2.AsyncClient, desk: Desk) -> None:
    async with http.stream("GET", "/stream") as stream:
        chunks = stream.aiter_bytes()
        assert await anext(chunks) == b"first"
        assert (await http.get("/nowhere")).status_code == 404
        desk.gate.set()
        assert await anext(chunks) == b"last"


async def test_an_open_websocket_does_not_count(http: httpx2.AsyncClient, runtime: Runtime) -> None:
    assert runtime.http_url
    async with connect(runtime.http_url.replace("http", "ws") + "/talk") as talk:
        assert (await http.get("/nowhere")).status_code == 404
        await talk.send("end")


async def test_an_upload_does_not_count_while_its_caller_sends(
    http: httpx2.AsyncClient, desk: Desk
) -> None:
    sending = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 10
        await sending.wait()
        yield b"y" * 10

    upload = asyncio.create_task(http.post("/upload", content=body()))

    async def begun() -> bool:
        return desk.waiting == 1

    await aeventually(begun)
    assert (await http.get("/nowhere")).status_code == 404
    sending.set()
    assert (await upload).json() == 20


async def test_a_caller_who_leaves_frees_its_place(runtime: Runtime, desk: Desk) -> None:
    assert runtime.http_url
    async with httpx2.AsyncClient(base_url=runtime.http_url) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("/wait", timeout=0.3)
        assert (await client.get("/nowhere")).status_code == 503  # it still works on it
        desk.gate.set()

        async def free() -> bool:
            return (await client.get("/nowhere")).status_code == 404

        await aeventually(free)


async def test_off_means_that_nothing_is_counted(desk: Desk) -> None:
    async with Runtime(desk, registry=REGISTRY, shedding="off", max_body=0) as runtime:
        assert runtime._servers.http
        assert runtime._servers.http._app._limiter is None
