"""Instances that answer over HTTP and gRPC, some of them tagged, and who got how many calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc.aio
import pytest

from meshkit.discovery.routing.rules import FOLDER
from meshkit.model import Instance
from meshkit.registry import Registry
from tests.client.http_servers import Server, raw_server
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.support.waiting import aeventually

SERVICE = "users"


class Said:
    """The lines that discovery has logged so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "meshkit.discovery")
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        records = self._caplog.records
        return [each.getMessage() for each in records if each.name == "meshkit.discovery"]


class Echo(echo_pb2_grpc.EchoServicer):
    """Answers with the name of its instance."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def Say(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        return echo_pb2.EchoReply(text=request.text, instance=self.name)


@contextlib.asynccontextmanager
async def running(
    registry: Registry, name: str, tags: Sequence[str] = (), service: str = SERVICE
) -> AsyncIterator[Server]:
    """Run and register one instance, with both transports; its name is its id."""
    server = Server()
    rpc = grpc.aio.server()
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(name), rpc)  # type: ignore[no-untyped-call]
    port = rpc.add_insecure_port("127.0.0.1:0")
    await rpc.start()
    async with raw_server(server) as http:
        instance = Instance(
            id=name,
            service=service,
            tags=tuple(tags),
            endpoints={"http": http, "grpc": type(http)("127.0.0.1", port)},
        )
        await registry.register(instance)
        try:
            yield server
        finally:
            await registry.deregister(name)
            await rpc.stop(None)


async def put_rules(registry: Registry, rules: object, service: str = SERVICE) -> None:
    """Write a service's rules; bytes as they are."""
    value = rules if isinstance(rules, bytes) else json.dumps(rules).encode()
    await registry.kv.put(FOLDER + service, value)


def canary(share: int) -> dict[str, dict[str, int]]:
    """Return rules that give the canary this percentage."""
    return {"split": {SERVICE: 100 - share, f"{SERVICE}@canary": share}}


async def called(call: Callable[[], Awaitable[str]], times: int) -> Counter[str]:
    """Call so often, one after the other; return who answered how often."""
    return Counter([await call() for _ in range(times)])


async def until_called(
    call: Callable[[], Awaitable[str]],
    fits: Callable[[Counter[str]], bool],
    *,
    times: int = 20,
    within: float = 15.0,
) -> Counter[str]:
    """Call so often until who answered fits."""
    found: Counter[str] = Counter()

    async def probe() -> bool:
        nonlocal found
        found = await called(call, times)
        return fits(found)

    try:
        await aeventually(probe, within=within)
    except AssertionError:
        pytest.fail(f"at last {found}")
    return found


async def settle_down() -> None:
    """Time in which what must not happen would."""
    await asyncio.sleep(0.3)
