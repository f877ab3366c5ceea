"""The systems that are compared: their servers, and how each is called."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import engines
import grpc.aio
import httpx2
from measure import BenchmarkError, now
from processes import Process, meshkit, uvicorn
from users_api import users_pb2, users_pb2_grpc
from wire import first_answer, free_port

from failover.traffic import TIMEOUT, Call
from meshkit import Endpoint, Mesh

READY = 30.0
COMMAND = "slow_mesh:Slow"


class System(abc.ABC):
    """One row of the table.

    Attributes:
        name: what it is.
        idempotent: its calls may be repeated, and its client knows.
        grows: whether a new instance is found by itself.
    """

    name: str
    idempotent = True
    grows = True

    def __init__(self, registry: engines.Running) -> None:
        self.registry = registry

    @abc.abstractmethod
    def command(self) -> tuple[list[str], dict[str, str]]:
        """Return command line and variables of one more instance."""

    @abc.abstractmethod
    async def ready(self, process: Process) -> float:
        """Wait until the instance says that it is up; return when that was."""

    @abc.abstractmethod
    def caller(self) -> contextlib.AbstractAsyncContextManager[Call]:
        """Return what makes one call."""


class MeshHttp(System):
    """meshkit over HTTP as it is by default, but for the timeout."""

    def __init__(self, registry: engines.Running, *, idempotent: bool) -> None:
        super().__init__(registry)
        self.idempotent = idempotent
        self.name = f"meshkit, HTTP, {registry.name}{'' if idempotent else ', not idempotent'}"

    def command(self) -> tuple[list[str], dict[str, str]]:
        return meshkit("run", COMMAND, "--registry", self.registry.url), {}

    async def ready(self, process: Process) -> float:
        while '"event": "ready"' not in process.output:
            process.check()
            await asyncio.sleep(0.005)
        return now()

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Call]:
        async with Mesh(self.registry.url, timeout=TIMEOUT) as mesh:
            client = mesh.http("slow")

            async def call() -> str:
                made = client.get("/work") if self.idempotent else client.post("/work")
                return str((await made).raise_for_status().json()["who"])

            yield call


class MeshGrpc(MeshHttp):
    """The same over gRPC."""

    def __init__(self, registry: engines.Running, *, idempotent: bool) -> None:
        super().__init__(registry, idempotent=idempotent)
        self.name = self.name.replace("HTTP", "gRPC")

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Call]:
        async with Mesh(self.registry.url, timeout=TIMEOUT) as mesh:
            stub: Any = mesh.grpc(users_pb2_grpc.UsersStub, "slow")

            async def call() -> str:
                if self.idempotent:
                    return str((await stub.GetUser(users_pb2.GetUserRequest(id=1))).name)
                return str((await stub.CreateUser(users_pb2.CreateUserRequest())).name)

            yield call


class Naive(System):
    """FastAPI registered in its lifespan; the caller asks Consul before each call, by httpx."""

    def __init__(self, registry: engines.Running, *, interval: str) -> None:
        super().__init__(registry)
        self.name = f"FastAPI + httpx + Consul query per call, HTTP check {interval}"
        self._interval = interval
        assert registry.server is not None
        self._consul: Any = registry.server

    def command(self) -> tuple[list[str], dict[str, str]]:
        self._port = free_port()
        variables = {
            "PORT": str(self._port),
            "CONSUL_PORT": str(self._consul.ports.http),
            "INTERVAL": self._interval,
        }
        return uvicorn("slow_naive:app", self._port), variables

    async def ready(self, process: Process) -> float:
        port = self._port
        return await first_answer(process, lambda: Endpoint("127.0.0.1", port), "/health")

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Call]:
        turn = itertools.count()
        query = f"http://{self._consul.address}/v1/health/service/slow?passing"
        async with httpx2.AsyncClient(timeout=TIMEOUT) as client:

            async def call() -> str:
                entries = (await client.get(query)).json()
                service = entries[next(turn) % len(entries)]["Service"]
                url = f"http://{service['Address']}:{service['Port']}/work"
                return str((await client.get(url)).raise_for_status().json()["who"])

            yield call


class RoundRobin(System):
    """grpc's own round_robin over a fixed list; with retries, or pings that find a hung peer."""

    grows = False

    def __init__(
        self, registry: engines.Running, *, retries: bool = False, keepalive: bool = False
    ) -> None:
        super().__init__(registry)
        more = ", retryPolicy" * retries + ", keepalive 1 s and ping timeout 0.5 s" * keepalive
        self.name = f"grpc round_robin, fixed list{more}"
        self._retries, self._keepalive = retries, keepalive
        self._ports: list[int] = []

    def command(self) -> tuple[list[str], dict[str, str]]:
        self._ports.append(free_port())
        return [sys.executable, "slow_grpc.py", str(self._ports[-1])], {}

    async def ready(self, process: Process) -> float:
        address = f"127.0.0.1:{self._ports[-1]}"
        async with grpc.aio.insecure_channel(address) as channel:
            async with asyncio.timeout(READY):
                await channel.channel_ready()
        return now()

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Call]:
        policy = {
            "maxAttempts": 3,
            "initialBackoff": "0.02s",
            "maxBackoff": "0.2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
        if self._retries:
            config["methodConfig"] = [{"name": [{}], "retryPolicy": policy}]
        options: list[tuple[str, Any]] = [("grpc.service_config", json.dumps(config))]
        if self._keepalive:
            options += [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_timeout_ms", 500)]
            options += [("grpc.http2.ping_timeout_ms", 500)]
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self._ports)
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            stub: Any = users_pb2_grpc.UsersStub(channel)  # type: ignore[no-untyped-call]

            async def call() -> str:
                answer = await stub.GetUser(users_pb2.GetUserRequest(id=1), timeout=TIMEOUT)
                return str(answer.name)

            yield call


def systems(local: engines.Running, consul: engines.Running) -> list[System]:
    """Return all rows; each is to be used once."""
    rows: list[System] = [
        kind(registry, idempotent=idempotent)
        for registry in (local, consul)
        for kind in (MeshHttp, MeshGrpc)
        for idempotent in (True, False)
    ]
    if consul.server is None:
        raise BenchmarkError("the hand-written rows need Consul")
    return [
        *rows,
        Naive(consul, interval="10s"),
        Naive(consul, interval="1s"),
        RoundRobin(local),
        RoundRobin(local, retries=True),
        RoundRobin(local, retries=True, keepalive=True),
    ]
