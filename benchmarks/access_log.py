"""CPU time per request with an access log, against the same server without.

The bursts of cpu_http on kept-alive connections. ``access_log``: ``meshkit run --access-log``, a
JSON line for each request. ``access_log_uvicorn``: the log that uvicorn writes unless it is told
not to, for comparison.
"""

from __future__ import annotations

import contextlib
import functools

from cpu_http import cost
from measure import Result, alternate, compare
from processes import Process, meshkit, running, uvicorn
from wire import first_answer, free_port

from meshkit import Endpoint

ROUNDS = 41


async def run(rounds: int) -> list[Result]:
    ports = [free_port() for _ in range(4)]
    theirs = uvicorn("plain:app", ports[2])
    commands = [
        meshkit("run", "mesh:Users", "--port", str(ports[0]), "--access-log"),
        meshkit("run", "mesh:Users", "--port", str(ports[1])),
        [*(word for word in theirs if word != "--no-access-log"), "--access-log"],
        uvicorn("plain:app", ports[3]),
    ]
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(running(command)) for command in commands]
        cases = []
        for process, port in zip(started, ports, strict=True):
            endpoint = Endpoint("127.0.0.1", port)
            await first_answer(process, functools.partial(Endpoint, "127.0.0.1", endpoint.port))
            cases.append(Case(process, endpoint))
        ours, none, loud, quiet = await alternate(rounds, *cases, warm_up=2)
    return [
        compare("access_log", ours, none, limit=1.2, unit="us"),
        compare("access_log_uvicorn", loud, quiet, limit=None, unit="us"),
    ]


class Case:
    """One server's bursts."""

    def __init__(self, process: Process, endpoint: Endpoint) -> None:
        self._process = process
        self._endpoint = endpoint

    async def __call__(self) -> float:
        return await cost(self._process, self._endpoint)
