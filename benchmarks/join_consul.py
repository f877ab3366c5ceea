"""From spawn to the first call that the new instance answers, through a real Consul.

`meshkit run --registry consul://...` against a FastAPI service as tutorials write it: registered
in its lifespan, with an HTTP check every 10 s. The consumer is the same for both: it asks
`/v1/health/service/NAME?passing` every 10 ms and calls whom it finds. The hand-written side depends
on when the agent happens to run its first check, so each value is the mean of three joins, of
which only the waiting overlaps.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from measure import BenchmarkError, Result, alternate, compare, now
from processes import Process, meshkit, running, uvicorn
from wire import LIMIT, first_answer, free_port, get

from meshkit import Endpoint
from tests.servers.consul import Consul
from tests.servers.programs import find_program, how_to_get

ROUNDS = 3
JOINS = 3
POLL = 0.01
NAIVE = "users-naive"


async def run(rounds: int) -> list[Result]:
    program = find_program("consul")
    if program is None:
        raise BenchmarkError(how_to_get("consul"))
    with tempfile.TemporaryDirectory(prefix="meshkit-bench-consul-") as folder:
        consul = Consul(program, Path(folder))
        try:
            consul.start()
            ours, theirs = await alternate(
                rounds, lambda: mesh_join(consul), lambda: naive_joins(consul), warm_up=0
            )
        finally:
            consul.stop()
    return [compare("join_consul", ours, theirs, limit=0.2, unit="s")]


async def mesh_join(consul: Consul) -> float:
    consul.clear()
    async with Consumer(consul, "users") as consumer:
        began = now()
        with running(meshkit("run", "mesh:Users", "--registry", consul.url)) as process:
            return (await consumer.wait_for(1, process))[0] - began


async def naive_joins(consul: Consul) -> float:
    consul.clear()
    began = []
    async with Consumer(consul, NAIVE) as consumer:
        with contextlib.ExitStack() as stack:
            for number in range(JOINS):
                endpoint = Endpoint("127.0.0.1", free_port())
                variables = {
                    "INSTANCE": f"{NAIVE}-{number}",
                    "PORT": str(endpoint.port),
                    "CONSUL_PORT": str(consul.ports.http),
                }
                began.append(now())
                process = stack.enter_context(
                    running(uvicorn("naive:app", endpoint.port), **variables)
                )
                await first_answer(process, lambda: endpoint, "/health")  # noqa: B023 - awaited
            # The sum of the durations does not depend on which join was whose.
            answered = await consumer.wait_for(JOINS, process)
    return statistics.mean(answered) - statistics.mean(began)


class Consumer:
    """Finds instances as hand-written clients do; ``answered`` is when each was first called."""

    def __init__(self, consul: Consul, service: str) -> None:
        self.answered: dict[str, float] = {}
        self._consul = consul
        self._path = f"/v1/health/service/{service}?passing"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._poll())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def wait_for(self, count: int, process: Process) -> list[float]:
        """Return when ``count`` instances had answered, each its moment."""
        deadline = now() + LIMIT
        while len(self.answered) < count:
            process.check()
            if now() > deadline:
                raise BenchmarkError(f"{self._path}: {len(self.answered)} of {count} answered")
            await asyncio.sleep(POLL)
        return list(self.answered.values())

    async def _poll(self) -> None:
        while True:
            for entry in self._consul.get(self._path):
                service = entry["Service"]
                if service["ID"] in self.answered:
                    continue
                with contextlib.suppress(OSError):
                    status, _ = get(Endpoint(service["Address"], service["Port"]))
                    if status == 200:
                        self.answered[service["ID"]] = now()
            await asyncio.sleep(POLL)
