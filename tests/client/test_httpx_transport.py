"""Clients that people already have, on the mesh."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType

import httpx
import httpx2
import pytest

from meshkit import Mesh
from meshkit.client.httpx_transport import MeshTransport
from meshkit.errors import ConfigError, NoInstances
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from tests.client.http_servers import (
    Server,
    close_after_reading,
    http_answer,
    never_answer,
    raw_server,
    read_request,
    refusing,
)

libraries = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@asynccontextmanager
async def on_mesh(*endpoints: Endpoint) -> AsyncIterator[Mesh]:
    async with open_registry(f"memory://{uuid.uuid4()}") as registry, Mesh(registry) as mesh:
        for letter, endpoint in zip("abc", endpoints, strict=False):
            await registry.register(
                Instance(id=f"users-{letter}", service="users", endpoints={"http": endpoint})
            )
        yield mesh


@libraries
async def test_a_call(library: ModuleType) -> None:
    server = Server(
        http_answer(
            201, b'{"a": 1}', ("content-type", "application/json"), ("set-cookie", "k=v; path=/")
        )
    )
    async with (
        raw_server(server) as endpoint,
        on_mesh(endpoint) as mesh,
        library.AsyncClient(transport=MeshTransport(mesh), headers={"x-a": "b"}) as client,
    ):
        answer = await client.post(
            "http://users/users/a%2Fb", params={"q": "\u20ac"}, json={"name": "Ada"}
        )
        assert (answer.status_code, answer.json(), answer.http_version) == (
            201,
            {"a": 1},
            "HTTP/1.1",
        )
        assert str(answer.url).startswith("http://users/users/")
        assert answer.extensions["meshkit_instance"].id == "users-a"
        await client.get("http://users/")
    first, second = server.received
    assert (first.method, first.target) == ("POST", "/users/a%2Fb?q=%E2%82%AC")
    assert first.body.replace(b" ", b"") == b'{"name":"Ada"}'
    assert [first.header(name) for name in ("x-a", "host")] == ["b", str(endpoint)]
    assert second.header("cookie") == "k=v"  # the client's own business, and it goes on
    assert server.connections == 1


@libraries
async def test_mounted_for_one_host(library: ModuleType) -> None:
    other = Server(http_answer(200, b"other"))
    async with (
        raw_server(Server()) as endpoint,
        raw_server(other) as plain,
        on_mesh(endpoint) as mesh,
        library.AsyncClient(mounts={"http://users": MeshTransport(mesh)}) as client,
    ):
        assert (await client.get("http://users/x")).text == "ok"
        assert (await client.get(f"http://{plain}/x")).text == "other"


@libraries
async def test_a_dead_instance_is_passed_over(library: ModuleType) -> None:
    with refusing() as dead:
        async with (
            raw_server(Server()) as endpoint,
            on_mesh(dead, endpoint) as mesh,
            library.AsyncClient(transport=MeshTransport(mesh)) as client,
        ):
            for _ in range(10):
                assert (await client.post("http://users/x", json={})).status_code == 200


@libraries
async def test_streams_both_ways(library: ModuleType) -> None:
    proceed = asyncio.Event()
    sent = []

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append((await read_request(reader)).body)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await proceed.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async with (
        raw_server(slowly) as endpoint,
        on_mesh(endpoint) as mesh,
        library.AsyncClient(transport=MeshTransport(mesh)) as client,
        client.stream("POST", "http://users/x", content=body()) as answer,
    ):
        got = []
        async for piece in answer.aiter_bytes():
            got.append(piece)
            proceed.set()
    assert (sent, got) == ([b"ab"], [b"one", b"two"])


@libraries
async def test_compressed_answers(library: ModuleType) -> None:
    packed = http_answer(200, gzip.compress(b"hello"), ("content-encoding", "gzip"))
    async with (
        raw_server(Server(packed)) as endpoint,
        on_mesh(endpoint) as mesh,
        library.AsyncClient(transport=MeshTransport(mesh)) as client,
    ):
        assert (await client.get("http://users/x")).text == "hello"


@libraries
async def test_errors_are_the_librarys(library: ModuleType) -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")

    with refusing() as dead:
        for endpoint, kind in ((dead, library.ConnectError),):
            async with (
                on_mesh(endpoint) as mesh,
                library.AsyncClient(transport=MeshTransport(mesh)) as client,
            ):
                with pytest.raises(kind, match="refused the connection") as caught:
                    await client.get("http://users/x")
                assert isinstance(caught.value.__cause__, NoInstances)
                assert str(caught.value.request.url) == "http://users/x"
                with pytest.raises(library.ConnectError, match="nobody: no instance is registered"):
                    await client.get("http://nobody/x")
    for handler, kind in (
        (never_answer, library.ReadTimeout),
        (close_after_reading, library.ReadError),
        (short, library.ReadError),
    ):
        async with (
            raw_server(handler) as endpoint,
            on_mesh(endpoint) as mesh,
            library.AsyncClient(transport=MeshTransport(mesh), timeout=1.0) as client,
        ):
            with pytest.raises(kind, match=r"^users: POST /x: "):
                await client.post("http://users/x", json={})


@libraries
@pytest.mark.parametrize("url", ["https://users/x", "http://users:8000/x"])
async def test_what_a_service_has_not(library: ModuleType, url: str) -> None:
    async with (
        on_mesh() as mesh,
        library.AsyncClient(transport=MeshTransport(mesh)) as client,
    ):
        with pytest.raises(library.UnsupportedProtocol, match=r"http://users/\.\.\."):
            await client.get(url)


async def test_options_are_those_of_a_client() -> None:
    async with on_mesh() as mesh:
        with pytest.raises(ConfigError, match="balancer"):
            MeshTransport(mesh, balancer="luck")
