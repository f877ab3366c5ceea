"""Connections belong to an instance: kept while it is there, closed when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections.abc import AsyncIterator

import pytest

from meshkit import Mesh
from meshkit.client.http1 import Http1Transport
from meshkit.client.http1.pool import IDLE_TIMEOUT, Pool
from meshkit.errors import CallTimeout, ConfigError, ConnectError
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from tests.client.http_servers import (
    Server,
    http_answer,
    raw_server,
    read_request,
    request_to,
)


class Counting:
    """Answers each request when allowed to, and knows which connections are open."""

    def __init__(self) -> None:
        self.open = self.made = self.most = self.waiting = 0
        self.proceed = asyncio.Event()
        self.proceed.set()
        self.changed = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        self._note(open=1)
        self.most = max(self.most, self.open)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await read_request(reader)
                    self._note(waiting=1)
                    await self.proceed.wait()
                    self._note(waiting=-1)
                    writer.write(http_answer(200, b"ok"))
        finally:
            self._note(open=-1)

    def _note(self, *, open: int = 0, waiting: int = 0) -> None:
        self.open += open
        self.waiting += waiting
        self.changed.set()

    async def until(self, *, open: int | None = None, waiting: int | None = None) -> None:
        async with asyncio.timeout(20):
            while open not in (None, self.open) or waiting not in (None, self.waiting):
                self.changed.clear()
                await self.changed.wait()


def instance(letter: str, endpoint: Endpoint) -> Instance:
    return Instance(id=f"users-{letter}", service="users", endpoints={"http": endpoint})


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry(f"memory://{uuid.uuid4()}") as opened:
        yield opened


async def until_listed(mesh: Mesh, *ids: str) -> None:
    target = mesh.target("users")
    async with asyncio.timeout(20):
        while {each.id for each in (await target.subscription.known()).instances} != set(ids):
            await asyncio.sleep(0.01)


async def test_a_server_that_leaves_sees_its_connections_closed(registry: Registry) -> None:
    leaving, staying = Counting(), Counting()
    async with raw_server(leaving) as first, raw_server(staying) as second:
        await registry.register(instance("a", first))
        await registry.register(instance("b", second))
        async with Mesh(registry) as mesh:
            users = mesh.http("users")
            while not (leaving.open and staying.open):
                await users.get("/")
            await registry.deregister("users-a")
            await leaving.until(open=0)
            assert staying.open == 1
            await users.get("/")
            assert staying.made == 1  # the others' connections are kept
        await staying.until(open=0)


async def test_a_call_under_way_ends_first(registry: Registry) -> None:
    server, other = Counting(), Counting()
    async with raw_server(server) as first, raw_server(other) as second:
        await registry.register(instance("a", first))
        async with Mesh(registry) as mesh:
            server.proceed.clear()
            call = asyncio.create_task(mesh.http("users").post("/"))
            await server.until(waiting=1)
            await registry.register(instance("b", second))
            await registry.deregister("users-a")
            await until_listed(mesh, "users-b")
            assert server.open == 1
            server.proceed.set()
            assert (await call).status_code == 200
            await server.until(open=0)


async def test_a_client_made_after_the_list_was_known(registry: Registry) -> None:
    server, other = Counting(), Counting()
    async with raw_server(server) as first, raw_server(other) as second:
        await registry.register(instance("a", first))
        await registry.register(instance("b", second))
        async with Mesh(registry) as mesh:
            await until_listed(mesh, "users-a", "users-b")
            while not server.open:
                await mesh.http("users").get("/")
            await registry.deregister("users-a")
            await server.until(open=0)


async def test_an_address_of_another_instance_gets_other_connections() -> None:
    server = Server()
    transport = Http1Transport()
    async with raw_server(server) as endpoint:
        request = request_to(endpoint)
        for peer in ("users-a", "users-a", "users-b", "users-b"):
            await transport.send(dataclasses.replace(request, peer=peer))
        assert server.connections == 2
    await transport.aclose()


async def test_no_more_connections_to_an_instance_than_allowed() -> None:
    server = Counting()
    transport = Http1Transport(connections=2)
    async with raw_server(server) as endpoint:
        async with asyncio.timeout(20):
            calls = (transport.send(request_to(endpoint)) for _ in range(20))
            assert {each.status_code for each in await asyncio.gather(*calls)} == {200}
        assert (server.made, server.most) == (2, 2)
        await transport.aclose()
        await server.until(open=0)


async def test_a_call_that_finds_no_free_connection_in_time() -> None:
    server = Counting()
    server.proceed.clear()
    transport = Http1Transport(connections=1)
    async with raw_server(server) as endpoint:
        first = asyncio.create_task(transport.send(request_to(endpoint)))
        await server.until(waiting=1)
        with pytest.raises(CallTimeout, match=r"^has all 1 connections in use$"):
            await transport.send(request_to(endpoint, timeout=0.05))
        second = asyncio.create_task(transport.send(request_to(endpoint)))
        third = asyncio.create_task(transport.send(request_to(endpoint)))
        await asyncio.sleep(0)
        second.cancel()  # leaves the line, and holds up nobody
        server.proceed.set()
        async with asyncio.timeout(20):
            await asyncio.gather(first, third)
        assert server.made == 1
    await transport.aclose()


async def test_a_waiting_call_goes_on_when_another_is_given_up() -> None:
    server = Counting()
    server.proceed.clear()
    transport = Http1Transport(connections=1)
    async with raw_server(server) as endpoint:
        first = asyncio.create_task(transport.send(request_to(endpoint)))
        await server.until(waiting=1)
        second = asyncio.create_task(transport.send(request_to(endpoint)))
        await asyncio.sleep(0)
        first.cancel()
        server.proceed.set()
        async with asyncio.timeout(20):
            assert (await second).status_code == 200
        assert server.made == 2
    await transport.aclose()


async def test_closing_ends_those_who_wait_too() -> None:
    server = Counting()
    server.proceed.clear()
    transport = Http1Transport(connections=1)
    async with raw_server(server) as endpoint:
        calls = [asyncio.create_task(transport.send(request_to(endpoint))) for _ in range(3)]
        await server.until(waiting=1)
        await transport.aclose()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(each) for each in ended] == ["can't be called: the HTTP client is closed"] * 3
        server.proceed.set()
        await server.until(open=0)


async def test_idle_connections_are_closed_in_time() -> None:
    server = Counting()
    transport = Http1Transport()
    async with raw_server(server) as endpoint:
        await transport.send(request_to(endpoint))
        (pool,) = transport._pools.values()
        now = asyncio.get_running_loop().time()
        pool.sweep(now + IDLE_TIMEOUT / 2)
        await asyncio.sleep(0.05)
        assert (server.open, pool.empty) == (1, False)
        pool.sweep(now + IDLE_TIMEOUT + 1)
        await server.until(open=0)
        assert pool.empty
        transport._sweep(asyncio.get_running_loop())
        assert transport._pools == {}  # an address that nobody calls any more costs nothing
    await transport.aclose()


def test_a_limit_that_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"^connections must be at least 1, not 0$"):
        Http1Transport(connections=0)


async def test_a_loop_that_was_held_up_does_not_take_it_for_the_servers_slowness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from meshkit.client.http1 import pool

    monkeypatch.setattr(pool, "CONNECT_TIMEOUT", 0.05)
    transport = Http1Transport()
    async with raw_server(Server()) as endpoint:
        call = asyncio.create_task(transport.send(request_to(endpoint)))
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(0.2)
        assert (await call).content == b"ok"
    await transport.aclose()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_connection_that_closes_before_it_is_used(*, streamed: bool) -> None:
    async def closing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with raw_server(closing) as endpoint:
        pool = Pool(endpoint.host, endpoint.port, 1)
        connection = await pool.take(5)
        await asyncio.sleep(0.1)
        connection.start(b"POST / HTTP/1.1\r\n\r\n", bodiless=False, streamed=streamed)
        # Surely not sent: another instance may have it, whatever the method.
        with pytest.raises(ConnectError, match="before the request was sent"):
            await (connection.until_head(5) if streamed else connection.until_complete(5))
        pool.give(connection)
        assert pool.empty
