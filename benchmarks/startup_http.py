"""From process start to callable through the registry, against plain uvicorn's first answer.

`meshkit run` counts as up when a watcher in another process has seen the instance in `local://`
*and* a request to the address found there is answered 200; plain `python -m uvicorn` with the same
routes when a request to its port is answered 200. Both are asked every 2 ms at equal cost: while
the watcher knows no address, a closed port is asked.
"""

from __future__ import annotations

import functools

from measure import Result, alternate, compare, now
from processes import meshkit, running, uvicorn
from watcher import Watcher
from wire import first_answer, free_port

from meshkit import Endpoint

ROUNDS = 11


async def run(rounds: int) -> list[Result]:
    http, both, theirs = await alternate(
        rounds,
        functools.partial(through_registry, "mesh:Users"),
        functools.partial(through_registry, "mesh_grpc:UsersGrpc"),
        plain,
    )
    return [
        compare("startup_http", http, theirs, limit=1.3, unit="ms"),
        compare("startup_http_and_grpc", both, theirs, limit=1.5, unit="ms"),
    ]


async def through_registry(service: str) -> float:
    nobody = Endpoint("127.0.0.1", free_port())
    async with Watcher("users") as watcher:

        def where() -> Endpoint:
            first = next(iter(watcher.seen.values()), None)
            return first.instance.endpoints["http"] if first else nobody

        began = now()
        with running(meshkit("run", service)) as process:
            return (await first_answer(process, where) - began) * 1000


async def plain() -> float:
    endpoint = Endpoint("127.0.0.1", free_port())
    began = now()
    with running(uvicorn("plain:app", endpoint.port)) as process:
        return (await first_answer(process, lambda: endpoint) - began) * 1000
