"""What an instance costs while nobody calls it, beside a plain server of the same app.

`meshkit run` with HTTP and gRPC, registered in `local://`, and a hand-written uvicorn + FastAPI +
grpc.aio server sit idle for the same 30 s. CPU is the run time of all threads in clock ticks
(10 ms on most machines): below one it is 0 to the accuracy of the clock. Memory is what only
the process holds (USS) and what it has resident (RSS), after one call each.
"""

from __future__ import annotations

import asyncio
import sys

from measure import Result, compare
from processes import (
    TICK,
    Process,
    cpu_seconds,
    cpu_ticks,
    meshkit,
    private_memory,
    resident_memory,
    running,
)
from watcher import Watcher
from wire import first_answer, free_port

from meshkit import Endpoint

ROUNDS = 1
SETTLE = 5.0
WINDOW = 30.0


async def run(rounds: int) -> list[Result]:
    plain = Endpoint("127.0.0.1", free_port())
    command = [sys.executable, "plain_grpc.py", str(plain.port), str(free_port())]
    async with Watcher("users") as watcher:
        with running(meshkit("run", "mesh_grpc:UsersGrpc")) as ours, running(command) as theirs:
            mesh = (await watcher.wait_for(1, ours))[0].instance.endpoints["http"]
            await first_answer(ours, lambda: mesh)
            await first_answer(theirs, lambda: plain)
            await asyncio.sleep(SETTLE)
            both = (ours, theirs)
            idle = [await run_times(*both) for _ in range(rounds)]
            uss = [private_memory(each.pid) for each in both]
            rss = [resident_memory(each.pid) for each in both]
    return [
        cpu_result(idle),
        compare("idle_private_memory", uss[:1], uss[1:], limit=None, unit="MiB"),
        compare("idle_resident_memory", rss[:1], rss[1:], limit=None, unit="MiB"),
    ]


async def run_times(*processes: Process) -> list[tuple[float, int]]:
    """Return (seconds, ticks) that each process ran within the window."""

    def read() -> list[tuple[float, int]]:
        return [(cpu_seconds(each.pid), cpu_ticks(each.pid)) for each in processes]

    before = read()
    await asyncio.sleep(WINDOW)
    return [
        (seconds - earlier, ticks - counted)
        for (seconds, ticks), (earlier, counted) in zip(read(), before, strict=True)
    ]


def cpu_result(idle: list[list[tuple[float, int]]]) -> Result:
    (ours, our_ticks), (theirs, their_ticks) = idle[-1]
    return Result(
        name="idle_cpu",
        limit=1.0,
        values=[each[0][0] / TICK for each in idle],
        unit="ticks",
        note=(
            f"{ours * 1000:.1f} against {theirs * 1000:.1f} ms in {WINDOW:.0f} s, "
            f"counted {our_ticks} against {their_ticks} ticks"
        ),
    )
