"""CPU time per request with OpenTelemetry, against the bare FastAPI application without it.

Ours with a provider, its spans kept and not kept, and FastAPI's own spans likewise. Exporters
take the spans and drop them. As in cpu_http.py; each has metrics too.
"""

from __future__ import annotations

import functools

from cpu_http import cost
from measure import Result, alternate, compare
from processes import meshkit, running, uvicorn
from watcher import Watcher
from wire import first_answer, free_port

from meshkit import Endpoint

ROUNDS = 21
# Goal for what every service has (trace context); with the SDK it is only reported.
LIMIT = 1.15


async def run(rounds: int) -> list[Result]:
    plain, theirs, theirs_off = (Endpoint("127.0.0.1", free_port()) for _ in range(3))
    async with Watcher("users") as watcher:
        with (
            running(meshkit("run", "traced:Users"), TRACE_RATIO="1") as on,
            running(uvicorn("plain:app", plain.port)) as bare,
            running(uvicorn("traced:app", theirs.port), TRACE_RATIO="1") as fastapi,
            running(uvicorn("traced:app", theirs_off.port), TRACE_RATIO="0") as fastapi_off,
        ):
            ours = (await watcher.wait_for(1, on))[0].instance.endpoints["http"]
            with running(meshkit("run", "traced:Users"), TRACE_RATIO="0") as off:
                found = await watcher.wait_for(2, off)
                ends = [each.instance.endpoints["http"] for each in found]
                ours_off = next(end for end in ends if end != ours)
                with running(meshkit("run", "mesh:Users")) as none:
                    found = await watcher.wait_for(3, none)
                    ends = [each.instance.endpoints["http"] for each in found]
                    ours_none = next(end for end in ends if end not in (ours, ours_off))
                    for process, end in (
                        (bare, plain),
                        (fastapi, theirs),
                        (fastapi_off, theirs_off),
                    ):
                        await first_answer(process, functools.partial(lambda each: each, end))
                    base, *values = await alternate(
                        rounds,
                        functools.partial(cost, bare, plain),
                        functools.partial(cost, none, ours_none),
                        functools.partial(cost, on, ours),
                        functools.partial(cost, off, ours_off),
                        functools.partial(cost, fastapi, theirs),
                        functools.partial(cost, fastapi_off, theirs_off),
                        warm_up=2,
                    )
    names = ("context", "spans", "spans_unsampled", "fastapi", "fastapi_unsampled")
    limits = (LIMIT, None, None, None, None)
    return [
        compare(f"tracing_{name}", mine, base, limit=limit, unit="us")
        for name, mine, limit in zip(names, values, limits, strict=True)
    ]
