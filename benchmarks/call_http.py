"""An HTTP call by name, against a bare call with the same library to a fixed address.

Ours has everything on that it has by default: it picks one of the instances, counts, has a
deadline that it sends along, a retry budget and a second attempt in store. The bare call is the
transport under it, used alone: one request to one address with a timeout, status, headers and
body read, nothing else. Both ask the same service, and neither decodes the JSON.

call_http_cpu_N: CPU of this process per call, all of its threads, with N calls in flight.
call_http_p50: the median time of a call, one at a time.
call_http_cpu_N_LIBRARY: the same CPU against what one would use otherwise; without a limit.
call_http_httpx: seconds per call at 32 in flight, ours against httpx's, asking the least that
answers, an ASGI application without a framework. call_http_fastapi: the same end to end, ours
asking a meshkit service and httpx the same routes on plain FastAPI, as people run it today.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import aiohttp
import httpx
from measure import Result, alternate, compare
from processes import meshkit, running, uvicorn
from pyreqwest.client import ClientBuilder
from watcher import Watcher
from wire import PATH, first_answer, free_port

from meshkit import Endpoint, Mesh
from meshkit.client.http1 import Http1Transport
from meshkit.client.transport import Request

ROUNDS = 25
CALLS = 1600
FEW = 320  # of a slow client
TIMEOUT = 10.0

Call = Callable[[], Awaitable[object]]


async def run(rounds: int) -> list[Result]:
    plain, least = (Endpoint("127.0.0.1", free_port()) for _ in range(2))
    async with Watcher("users") as watcher:
        with (
            running(meshkit("run", "mesh:Users")) as ours,
            running(uvicorn("plain:app", plain.port)) as theirs,
            running(uvicorn("raw:app", least.port)) as raw,
        ):
            service = (await watcher.wait_for(1, ours))[0].instance.endpoints["http"]
            await first_answer(theirs, lambda: plain)
            await first_answer(raw, lambda: least)
            return [
                *await against_the_library(service, rounds),
                *await against_others(service, max(rounds // 3, 3)),
                *await against_httpx(least, plain, max(rounds // 5, 3)),
            ]


async def against_the_library(service: Endpoint, rounds: int) -> list[Result]:
    async with by_name("local://") as ours, bare(service) as theirs:
        results = []
        for flight in (1, 32):
            pair = [functools.partial(cpu, call, flight) for call in (ours, theirs)]
            mine, base = await alternate(rounds, *pair, warm_up=2)
            name = f"call_http_cpu_{flight}"
            results.append(compare(name, mine, base, limit=1.10, unit="us"))
        pair = [functools.partial(p50, call) for call in (ours, theirs)]
        mine, base = await alternate(rounds, *pair, warm_up=2)
        return [*results, compare("call_http_p50", mine, base, limit=1.05, unit="us")]


async def against_others(service: Endpoint, rounds: int) -> list[Result]:
    """Compare with bare calls of the libraries that people have."""
    results = []
    for name, client in (("pyreqwest", pyreqwest), ("aiohttp", aiohttp_client)):
        async with by_name("local://") as ours, client(service) as theirs:
            for flight in (1, 32):
                pair = [functools.partial(cpu, call, flight) for call in (ours, theirs)]
                mine, base = await alternate(rounds, *pair)
                row = f"call_http_cpu_{flight}_{name}"
                results.append(compare(row, mine, base, limit=None, unit="us"))
    return results


async def against_httpx(least: Endpoint, plain: Endpoint, rounds: int) -> list[Result]:
    results = []
    places = (
        ("httpx", f"static://users={least}", least, 15),
        ("fastapi", "local://", plain, 12),
    )
    for name, registry, endpoint, goal in places:
        async with by_name(registry) as ours, httpx_client(endpoint) as theirs:
            pair = (
                functools.partial(seconds, ours, 32, CALLS),
                functools.partial(seconds, theirs, 32, FEW),
            )
            mine, base = await alternate(rounds, *pair)
        results.append(compare(f"call_http_{name}", mine, base, limit=1 / goal, unit="us"))
    return results


@contextlib.asynccontextmanager
async def by_name(registry: str) -> AsyncIterator[Call]:
    async with Mesh(registry) as mesh:
        users = mesh.http("users", timeout=TIMEOUT)
        yield lambda: users.get(PATH)


@contextlib.asynccontextmanager
async def bare(endpoint: Endpoint) -> AsyncIterator[Call]:
    url = f"http://{endpoint}{PATH}"
    transport = Http1Transport()
    try:
        yield lambda: transport.send(Request("GET", url, (), None, TIMEOUT))
    finally:
        await transport.aclose()


@contextlib.asynccontextmanager
async def pyreqwest(endpoint: Endpoint) -> AsyncIterator[Call]:
    url = f"http://{endpoint}{PATH}"
    builder = ClientBuilder().http1_only().no_proxy().timeout(timedelta(seconds=TIMEOUT))
    async with builder.build() as client:

        async def call() -> bytes:
            answer = await client.get(url).build().send()
            return (await answer.bytes()).to_bytes()

        yield call


@contextlib.asynccontextmanager
async def aiohttp_client(endpoint: Endpoint) -> AsyncIterator[Call]:
    url = f"http://{endpoint}{PATH}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(timeout=timeout) as client:

        async def call() -> bytes:
            async with client.get(url) as answer:
                return await answer.read()

        yield call


@contextlib.asynccontextmanager
async def httpx_client(endpoint: Endpoint) -> AsyncIterator[Call]:
    url = f"http://{endpoint}{PATH}"
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        yield lambda: client.get(url)


async def cpu(call: Call, flight: int) -> float:
    """Return microseconds of CPU per call."""
    gc.collect()
    before = time.process_time()
    await load(call, flight, CALLS)
    return (time.process_time() - before) / CALLS * 1e6


async def seconds(call: Call, flight: int, calls: int) -> float:
    """Return microseconds per call."""
    before = time.perf_counter()
    await load(call, flight, calls)
    return (time.perf_counter() - before) / calls * 1e6


async def p50(call: Call) -> float:
    """Return the median in microseconds of calls made one after the other."""
    times = []
    for _ in range(CALLS // 4):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


async def load(call: Call, flight: int, calls: int) -> None:
    async def caller() -> None:
        for _ in range(calls // flight):
            await call()

    await asyncio.gather(*(caller() for _ in range(flight)))
