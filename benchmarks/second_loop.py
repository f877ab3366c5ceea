"""gRPC beside HTTP that takes all it can get: two loops in one process, against two processes.

Both services serve HTTP and gRPC, one with ``grpc_thread``; the third case is a process for each
transport, and the fourth, for comparison, is both in one loop. All servers share one core and the
load generator has the other. HTTP is saturated by 16 connections that always have a request out;
what is counted are the gRPC calls that 8 callers get through meanwhile, for each second of CPU that
the servers get (all of the core's, when nobody else wants it). The value is by what factor two
processes do better: 1.25 means that we keep 0.8 of their calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import os
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio
from measure import BenchmarkError, Result, alternate, compare, now
from processes import STUBS, cpu_seconds, meshkit, running
from watcher import Watcher
from wire import load

from meshkit import Endpoint

ROUNDS = 9
SECONDS = 2.0
CONNECTIONS = 16
BURST = 800
CALLERS = 8
SERVERS_CORE, OUR_CORE = {0}, {1}
NUMBERS = itertools.count()


@dataclasses.dataclass(frozen=True, slots=True)
class Served:
    """Where the two transports of one case are."""

    http: Endpoint
    grpc: Endpoint
    processes: frozenset[int]

    @property
    def cpu(self) -> float:
        """Seconds of CPU that the servers have had."""
        return sum(cpu_seconds(pid) for pid in self.processes)


async def run(rounds: int) -> list[Result]:
    if len(os.sched_getaffinity(0)) < 2:
        raise BenchmarkError("two cores are needed")
    sys.path.insert(1, str(STUBS))
    with contextlib.ExitStack() as stack:
        one = await started(stack, "mesh_grpc:UsersGrpc")
        two = await started(stack, "mesh_grpc:UsersGrpc", MESHKIT_GRPC_THREAD="1")
        http = await started(stack, "mesh:Users")
        rpc = await started(stack, "mesh_grpc:UsersGrpc")
        apart = Served(http.http, rpc.grpc, http.processes | rpc.processes)
        cases = [functools.partial(calls, each) for each in (two, apart, one)]
        with on(OUR_CORE):
            thread, processes, loop = await alternate(rounds, *cases)
    result = compare("second_loop", processes, thread, limit=1.25, unit="calls/s")
    note = f"{result.note}; one loop: {statistics.median(loop):.3g}"
    return [dataclasses.replace(result, note=note)]


async def started(stack: contextlib.ExitStack, service: str, **variables: str) -> Served:
    """Start a service on the servers' core, and wait until it is up."""
    # Each has a registry of its own, so that it is the only one that is seen there.
    registry = f"local://second-{next(NUMBERS)}"
    async with Watcher("users", registry) as watcher:
        with on(SERVERS_CORE):
            command = meshkit("run", service, "--registry", registry)
            process = stack.enter_context(running(command, MESHKIT_SHEDDING="off", **variables))
        (seen,) = await watcher.wait_for(1, process)
        endpoints = seen.instance.endpoints
        grpc_endpoint = endpoints.get("grpc", endpoints["http"])
        return Served(endpoints["http"], grpc_endpoint, frozenset({process.pid}))


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Run on these cores for a while; programs started meanwhile stay there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def calls(served: Served) -> float:
    """Return the gRPC calls per second of CPU while HTTP is saturated."""
    from users_api import users_pb2, users_pb2_grpc  # noqa: PLC0415 - found when STUBS is

    request = users_pb2.GetUserRequest(id=7)
    async with (
        saturated(served.http),
        grpc.aio.insecure_channel(str(served.grpc)) as channel,
    ):
        stub: Any = users_pb2_grpc.UsersStub(channel)  # type: ignore[no-untyped-call]
        await stub.GetUser(request)
        await asyncio.sleep(0.3)
        end, before = now() + SECONDS, served.cpu

        async def caller() -> int:
            count = 0
            while now() < end:
                await stub.GetUser(request)
                count += 1
            return count

        count = sum(await asyncio.gather(*(caller() for _ in range(CALLERS))))
        return count / (served.cpu - before)


@contextlib.asynccontextmanager
async def saturated(endpoint: Endpoint) -> AsyncIterator[None]:
    """Keep HTTP busy."""
    ended = asyncio.Event()

    async def keep() -> None:
        while not ended.is_set():
            await load(endpoint, requests=BURST, connections=CONNECTIONS)

    keeping = asyncio.create_task(keep())
    try:
        yield
        ended.set()
        await keeping
    finally:
        keeping.cancel()
