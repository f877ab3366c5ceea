"""CPU time per request with load shedding and the body limit, against both off.

The bursts of cpu_http on kept-alive connections; both are on by default.
"""

from __future__ import annotations

import contextlib
import functools

from access_log import Case
from measure import Result, alternate, compare
from processes import meshkit, running
from wire import first_answer, free_port

from meshkit import Endpoint

ROUNDS = 61


async def run(rounds: int) -> list[Result]:
    variables: list[dict[str, str]] = [{"MESHKIT_SHEDDING": "auto"}, {"MESHKIT_MAX_BODY": "0"}]
    cases = []
    with contextlib.ExitStack() as stack:
        for settings in variables:
            endpoint = Endpoint("127.0.0.1", free_port())
            command = meshkit("run", "mesh:Users", "--port", str(endpoint.port))
            process = stack.enter_context(running(command, **settings))
            await first_answer(process, functools.partial(Endpoint, "127.0.0.1", endpoint.port))
            cases.append(Case(process, endpoint))
        on, off = await alternate(rounds, *cases, warm_up=2)
    return [compare("limits", on, off, limit=1.08, unit="us")]
