"""`meshkit run --instances 4`: what each later instance costs, against a `meshkit run` of its own.

Start-up is from process start (for a later instance: from its fork) until a watcher in another
process sees it in `local://`. Memory is what only that process holds (USS), after one call each.
The first of the four is left out; of the other three the median counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import statistics
from collections.abc import Sequence

from measure import BenchmarkError, Result, compare, now
from processes import Process, meshkit, private_memory, running, started_at
from watcher import Seen, Watcher
from wire import LIMIT, get

ROUNDS = 7
INSTANCES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What one instance took: milliseconds to start, MiB of its own."""

    start: float
    memory: float


async def run(rounds: int) -> list[Result]:
    later, single = [], []
    for _ in range(rounds + 1):
        later.append(typical((await costs("--instances", str(INSTANCES), count=INSTANCES))[1:]))
        single.append(typical(await costs(count=1)))
    del later[0], single[0]  # they filled the caches
    return [
        compare(
            "instances_startup",
            [each.start for each in later],
            [each.start for each in single],
            limit=0.3,
            unit="ms",
        ),
        compare(
            "instances_private_memory",
            [each.memory for each in later],
            [each.memory for each in single],
            limit=0.5,
            unit="MiB",
        ),
    ]


async def costs(*options: str, count: int) -> list[Cost]:
    """Run so many instances; return their costs in the order in which they were started."""
    async with Watcher("users") as watcher:
        with running(meshkit("run", "mesh:Users", *options)) as process:
            seen = await watcher.wait_for(count, process)
            pids = await process_ids(process, seen)
            for each in seen:
                get(each.instance.endpoints["http"])
            return [
                Cost((each.at - started_at(pid)) * 1000, private_memory(pid))
                for pid, each in sorted(zip(pids, seen, strict=True), key=lambda pair: pair[0])
            ]


async def process_ids(process: Process, seen: Sequence[Seen]) -> list[int]:
    """Read from the ready lines which process each instance is."""
    deadline = now() + LIMIT
    while now() < deadline:
        lines = map(json.loads, process.output.splitlines())
        found = {line["instance"]: line["pid"] for line in lines if line.get("event") == "ready"}
        if all(each.instance.id in found for each in seen):
            return [found[each.instance.id] for each in seen]
        process.check()
        await asyncio.sleep(0.01)
    raise BenchmarkError(f"no ready line of {len(seen)} instances within {LIMIT:.0f} s")


def typical(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(each.start for each in costs),
        statistics.median(each.memory for each in costs),
    )
