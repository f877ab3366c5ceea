"""Traffic over HTTP and gRPC through random trouble: every call is answered, and nothing leaks.

For a minute, or for SOAK_SECONDS; ``make soak`` takes ten minutes. What happened is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Iterator

import pytest

from meshkit import Mesh
from tests.conftest import APPS
from tests.faults.proxy import Proxy
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.servers import Consul
from tests.servers.fixtures import MakeConsul
from tests.soak.trouble import FLEET, Trouble
from tests.support.holdings import fall_to, holdings, memory
from tests.support.load import Load
from tests.support.processes import Processes, processes

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = int(os.environ.get("SOAK_SEED") or secrets.randbelow(10**6))
RATE = 80  # of each of the three kinds of calls
TIMEOUT = 5.0
WARM_UP = 5.0
SETTLED = 12.0  # seconds until lists, pauses and connections are what they stay
MEMORY_LIMIT = 32.0  # MiB
SPARE = 40  # connections kept for the next call, to four instances

pytestmark = [pytest.mark.consul, pytest.mark.slow]


@pytest.fixture
def consul(make_consul: MakeConsul) -> Consul:
    return make_consul(connections=2000)


@pytest.fixture
def services(consul: Consul) -> Iterator[Processes]:
    with processes(APPS, consul.url) as running:
        yield running


async def test_soak(services: Processes, consul: Consul) -> None:
    print(f"soak: SOAK_SECONDS={SECONDS:g} SOAK_SEED={SEED}")
    async with Proxy(consul.address) as proxy:
        trouble = await asyncio.to_thread(Trouble, services, consul, proxy, seed=SEED)
        async with Mesh(consul.url) as mesh:  # what libraries keep once they were used
            for load in made_by(mesh):
                async with load:
                    await load.answered_by(FLEET)
        before = holdings()
        async with Mesh(f"consul://{proxy.address}", timeout=TIMEOUT) as mesh:
            loads = await calls_through(mesh, trouble)
        await fall_to(before, spare=2)
    look, rpc, change = loads
    print(f"soak: {dict(trouble.made)}, {sum(each.calls for each in loads)} calls")
    for each in (look, rpc):  # what may be repeated has been answered, each of them
        assert each.errors == []
        assert sum(each.answers.values()) == each.calls > RATE * SECONDS / 2
    # What may not was answered too, but for what was under way on those who died or hung.
    assert sum(change.answers.values()) + len(change.errors) == change.calls
    assert len(change.errors) <= trouble.lost * RATE * 0.1
    assert max(max(each.seconds) for each in loads) < TIMEOUT + 2


async def calls_through(mesh: Mesh, trouble: Trouble) -> list[Load]:
    """Let calls go on until the trouble is over; the mesh then holds what it held before."""
    loads = made_by(mesh)
    async with contextlib.AsyncExitStack() as stack:
        for load in loads:
            await stack.enter_async_context(load)
        for load in loads:
            await load.answered_by(FLEET)
        await trouble.make(WARM_UP)
        await asyncio.sleep(SETTLED)
        usual, used = holdings(), memory()
        began = time.monotonic()
        await trouble.make(SECONDS)
        assert time.monotonic() - began >= SECONDS
        await asyncio.sleep(SETTLED)
        await fall_to(usual, spare=SPARE)
        grown = memory() - used
        assert grown < MEMORY_LIMIT, f"{grown:.1f} MiB more than after the warm-up"
    return loads


def made_by(mesh: Mesh) -> list[Load]:
    """Return calls of three kinds: HTTP and gRPC that may be repeated, HTTP that may not."""
    client = mesh.http("paced")
    stub = mesh.grpc(echo_pb2_grpc.EchoStub, "paced")

    async def look() -> str:
        return str((await client.get("/work")).raise_for_status().json()["pid"])

    async def rpc() -> str:
        return str((await stub.Look(echo_pb2.EchoRequest())).instance)

    async def change() -> str:
        return str((await client.post("/work")).raise_for_status().json()["pid"])

    return [Load(call, rate=RATE) for call in (look, rpc, change)]
