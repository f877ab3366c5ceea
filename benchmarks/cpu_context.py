"""CPU time per request that brings a context along, against the same request to plain uvicorn.

The bursts of cpu_http, but each request carries what a mesh client sends: an id, a deadline, a
W3C trace and the instance it means. meshkit, with its metrics on, checks them, keeps the deadline
and answers the id; plain FastAPI only parses the headers.
"""

from __future__ import annotations

import functools

from cpu_http import CONNECTIONS, REQUESTS
from measure import Result, alternate, compare
from processes import Process, cpu_seconds, meshkit, running, uvicorn
from watcher import Watcher
from wire import first_answer, free_port, load

from meshkit import Endpoint, identity

ROUNDS = 61
CONTEXT = {
    "x-request-id": "9f0c4bf92f3577b34da6a3ce929d0e0e",
    "x-meshkit-deadline": "5000",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


async def run(rounds: int) -> list[Result]:
    plain = Endpoint("127.0.0.1", free_port())
    async with Watcher("users") as watcher:
        with (
            running(meshkit("run", "mesh:Users"), MESHKIT_METRICS="on") as ours,
            running(uvicorn("plain:app", plain.port)) as theirs,
        ):
            mesh = (await watcher.wait_for(1, ours))[0].instance
            await first_answer(theirs, lambda: plain)
            headers = {**CONTEXT, identity.TARGET: mesh.id}
            mine, base = await alternate(
                rounds,
                functools.partial(cost, ours, mesh.endpoints["http"], headers),
                functools.partial(cost, theirs, plain, headers),
                warm_up=2,
            )
    return [compare("cpu_context", mine, base, limit=1.15, unit="us")]


async def cost(process: Process, endpoint: Endpoint, headers: dict[str, str]) -> float:
    """Return microseconds of CPU per request."""
    before = cpu_seconds(process.pid)
    await load(endpoint, requests=REQUESTS, connections=CONNECTIONS, headers=headers)
    return (cpu_seconds(process.pid) - before) / REQUESTS * 1e6
