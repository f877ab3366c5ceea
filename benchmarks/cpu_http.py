"""CPU time per request of a service, against the same routes on plain uvicorn.

The kernel's run-time counters of all the server's threads before and after a burst of GET
requests (path parameter, pydantic response model) over kept-alive connections. Both servers run on
httptools and uvloop without an access log, stay up throughout, and take bursts in turn.
"""

from __future__ import annotations

import functools

from measure import BenchmarkError, Result, alternate, compare
from processes import Process, cpu_seconds, meshkit, running, uvicorn
from watcher import Watcher
from wire import first_answer, free_port, get, load

from meshkit import Endpoint

ROUNDS = 61
REQUESTS = 1000
CONNECTIONS = 8


async def run(rounds: int) -> list[Result]:
    plain = Endpoint("127.0.0.1", free_port())
    async with Watcher("users") as watcher:
        with (
            running(meshkit("run", "mesh:Users")) as ours,
            running(uvicorn("plain:app", plain.port)) as theirs,
        ):
            mesh = (await watcher.wait_for(1, ours))[0].instance.endpoints["http"]
            await first_answer(theirs, lambda: plain)
            if get(mesh) != get(plain):
                raise BenchmarkError(f"the answers differ: {get(mesh)} and {get(plain)}")
            mine, base = await alternate(
                rounds,
                functools.partial(cost, ours, mesh),
                functools.partial(cost, theirs, plain),
                warm_up=2,
            )
    return [compare("cpu_http", mine, base, limit=1.05, unit="us")]


async def cost(process: Process, endpoint: Endpoint) -> float:
    """Return microseconds of CPU per request."""
    before = cpu_seconds(process.pid)
    await load(endpoint, requests=REQUESTS, connections=CONNECTIONS)
    return (cpu_seconds(process.pid) - before) / REQUESTS * 1e6
