"""Checks by the agent beside our heartbeat: real services, that turn unready or hang."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health as grpc_health, health_pb2, health_pb2_grpc

from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import Registry, open_registry
from meshkit.testing.watched import Watched
from tests.servers import Consul
from tests.support.processes import ROOT, processes

pytestmark = pytest.mark.consul

PATIENCE = 30.0


class Ready:
    """What the agent asks: /health/ready over HTTP and the standard health service over gRPC."""

    def __init__(self) -> None:
        self.answer = "200 OK"
        self.asked = 0
        self.health = grpc_health.aio.HealthServicer()
        self.endpoints: dict[str, Endpoint] = {}

    async def turn(self, *, ready: bool) -> None:
        self.answer = "200 OK" if ready else "503 Service Unavailable"
        kinds = health_pb2.HealthCheckResponse
        await self.health.set("", kinds.SERVING if ready else kinds.NOT_SERVING)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"GET /health/ready ")
            self.asked += 1
            writer.write(f"HTTP/1.1 {self.answer}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()


@pytest.fixture
async def ready() -> AsyncIterator[Ready]:
    ready = Ready()
    http = await asyncio.start_server(ready.serve, "127.0.0.1", 0)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(ready.health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await ready.turn(ready=True)
    ready.endpoints = {
        "http": Endpoint("127.0.0.1", http.sockets[0].getsockname()[1]),
        "grpc": Endpoint("127.0.0.1", port),
    }
    yield ready
    http.close()
    await server.stop(None)


def agents_checks(consul: Consul) -> dict[str, Any]:
    found = consul.get("/v1/agent/checks")
    return {name: check for name, check in found.items() if name.count(":") > 1}


@pytest.mark.parametrize("kind", ["http", "grpc"])
async def test_up_at_once_down_when_it_fails_and_up_again(
    consul: Consul, ready: Ready, kind: str
) -> None:
    users = Instance(id="users-1a2b", service="users", endpoints=ready.endpoints)
    async with (
        open_registry(f"{consul.url}?check={kind}&check_interval=1s") as registry,
        Watched(registry.watch("users"), patience=PATIENCE) as watched,
    ):
        assert (await watched.next()).instances == ()
        lease = await registry.register(users)
        assert (await registry.instances("users")).up
        assert (await watched.next()).up
        (check,) = agents_checks(consul).values()
        assert (check["CheckID"], check["Type"]) == (f"service:users-1a2b:{kind}", kind)
        await ready.turn(ready=False)
        down = await watched.until(lambda snapshot: not snapshot.up)
        assert [each.status for each in down.instances] == [Status.DOWN]
        await registry.renew(lease)  # our own heartbeat does not hide what the agent sees
        assert not (await registry.instances("users")).up
        await ready.turn(ready=True)
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
        await registry.deregister(users.id)
        assert consul.get("/v1/agent/checks") == {}


async def test_both_checks_and_only_for_what_there_is(consul: Consul, ready: Ready) -> None:
    async with open_registry(f"{consul.url}?check=http,grpc&check_interval=1s") as registry:
        for kinds in (("http", "grpc"), ("grpc",), ("http",), ()):
            endpoints = {kind: ready.endpoints[kind] for kind in kinds}
            users = Instance(id="users-1a2b", service="users", endpoints=endpoints)
            await registry.register(users)
            assert sorted(agents_checks(consul)) == sorted(f"service:users-1a2b:{k}" for k in kinds)
            assert (await registry.instances("users")).up
        await registry.deregister("users-1a2b")


async def test_a_draining_instance_stays_so_and_leaves_nothing_behind(
    consul: Consul, ready: Ready
) -> None:
    draining = Instance(
        id="users-1a2b", service="users", endpoints=ready.endpoints, status=Status.DRAINING
    )
    async with open_registry(f"{consul.url}?check=http&check_interval=1s") as registry:
        lease = await registry.register(draining)
        async with asyncio.timeout(PATIENCE):
            while ready.asked < 2:
                await asyncio.sleep(0.05)
        await registry.renew(lease)
        (found,) = (await registry.instances("users")).instances
        assert found.status is Status.DRAINING
        await registry.deregister(draining.id)
        asked = ready.asked
        await asyncio.sleep(1.5)
        assert ready.asked <= asked + 1  # one may have been under way
        assert consul.get("/v1/agent/checks") == {}
        assert consul.get("/v1/catalog/service/users") == []


@pytest.mark.slow
async def test_a_real_service_that_hangs_is_down_for_all_and_deregisters_cleanly(
    consul: Consul,
) -> None:
    with processes(
        ROOT / "tests" / "support" / "apps", f"{consul.url}?check=http,grpc&check_interval=1s"
    ) as services:
        service = await asyncio.to_thread(services.start("echo_rpc:EchoRpc").ready)
        async with open_registry(consul.url) as registry:
            await follow(registry, consul, service.pid)
        service.send(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait) == 0
        assert consul.get("/v1/agent/checks") == {}


async def follow(registry: Registry, consul: Consul, pid: int) -> None:
    async with Watched(registry.watch("echo-rpc"), patience=PATIENCE) as watched:
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
        assert len(agents_checks(consul)) == 2
        os.kill(pid, signal.SIGSTOP)
        try:
            await watched.until(lambda snapshot: not snapshot.up)
        finally:
            os.kill(pid, signal.SIGCONT)
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
