"""How much a caller may send: bodies, in one piece and in chunks, and heads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import Body, Request

from meshkit import MeshService, Runtime, get, post
from meshkit.server.http_protocol import MAX_HEAD

REGISTRY = "memory://body-limit"
LIMIT = 100_000


class Drop(MeshService):
    name = "drop"

    def __init__(self) -> None:
        self.read = 0

    @get("/")
    async def index(self) -> int:
        return self.read

    @post("/json")
    async def json(self, text: str = Body()) -> int:
        return len(text)

    @post("/raw")
    async def raw(self, request: Request) -> int:
        async for chunk in request.stream():
            self.read += len(chunk)
        return self.read


@pytest.fixture
def drop() -> Drop:
    return Drop()


@pytest.fixture
async def runtime(drop: Drop) -> AsyncIterator[Runtime]:
    async with Runtime(drop, registry=REGISTRY, max_body=LIMIT, drain_delay=0) as running:
        yield running


@pytest.fixture
async def http(runtime: Runtime) -> AsyncIterator[httpx2.AsyncClient]:
    assert runtime.http_url
    async with httpx2.AsyncClient(base_url=runtime.http_url, timeout=20) as client:
        yield client


async def chunked(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


def check_refused(answer: httpx2.Response) -> None:
    assert answer.status_code == 413
    detail = f"the body is larger than {LIMIT} bytes, the limit of this service (max_body)"
    assert answer.json() == {"detail": detail}


async def test_a_body_up_to_the_limit_is_read(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/raw", content=b"x" * LIMIT)).json() == LIMIT
    assert (await http.post("/raw", content=chunked(LIMIT))).json() == 2 * LIMIT


@pytest.mark.parametrize("path", ["/raw", "/json", "/nowhere"])
async def test_an_announced_body_above_it_is_not_read(
    http: httpx2.AsyncClient, drop: Drop, path: str
) -> None:
    check_refused(await http.post(path, content=b"x" * (LIMIT + 1)))
    assert drop.read == 0


@pytest.mark.parametrize("path", ["/raw", "/json"])
async def test_a_chunked_body_is_counted_while_it_is_read(
    http: httpx2.AsyncClient, drop: Drop, path: str
) -> None:
    check_refused(await http.post(path, content=chunked(LIMIT * 3)))
    assert drop.read <= LIMIT
    assert (await http.get("/")).status_code == 200


async def test_an_upload_form_is_counted_as_a_whole(http: httpx2.AsyncClient) -> None:
    assert (await http.post("/raw", files={"upload": b"x" * (LIMIT - 1000)})).status_code == 200
    check_refused(await http.post("/raw", files={"upload": b"x" * LIMIT}))


async def test_a_caller_who_sends_without_looking_still_sees_the_answer(runtime: Runtime) -> None:
    assert runtime.instance
    endpoint = runtime.instance.endpoints["http"]
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n")
    for _ in range(8000):
        writer.write(b"x" * 1000)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    writer.close()


async def test_without_a_limit_anything_is_read(drop: Drop) -> None:
    async with Runtime(drop, registry=REGISTRY, max_body=0, drain_delay=0) as runtime:
        assert runtime.http_url
        async with httpx2.AsyncClient(base_url=runtime.http_url) as client:
            size = 20 * 1024 * 1024
            assert (await client.post("/raw", content=b"x" * size)).json() == size


async def head(runtime: Runtime, size: int, *, piece: int) -> bytes:
    """Send a request whose head has so many bytes, in pieces; return what comes back."""
    assert runtime.instance
    endpoint = runtime.instance.endpoints["http"]
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    content = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    line = b"X-Filler: " + b"x" * 988 + b"\r\n"
    content += line * (size // len(line)) + b"\r\n"
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(content), piece):
            writer.write(content[start : start + piece])
            await writer.drain()
            await asyncio.sleep(0.001)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_head_up_to_the_limit_is_read(runtime: Runtime) -> None:
    assert (await head(runtime, MAX_HEAD - 2000, piece=4000)).startswith(b"HTTP/1.1 200 ")


async def test_an_endless_head_ends_the_connection(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await head(runtime, MAX_HEAD * 8, piece=4000)
    assert not answer or answer.startswith(b"HTTP/1.1 431 ")
    assert "refused with 431" in caplog.text


async def test_a_large_body_before_the_next_head_is_no_large_head(runtime: Runtime) -> None:
    assert runtime.instance
    endpoint = runtime.instance.endpoints["http"]
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    body = b"x" * 90_000
    writer.write(b"POST /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + body)
    writer.write(b"GET / HTTP/1.1\r\nHost:")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.write(b" x\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    writer.close()
