"""What callers see when one of two instances is killed, stopped or hung, and when one joins.

Two instances take 200 calls a second of 20 ms each, open loop, with 2 s for a call. After 3 s one
of them gets SIGKILL, SIGTERM or SIGSTOP; 3 s later a third one is started, and the traffic goes on
for 7 s. Counted are failed calls, the slowest one that was answered, and how long the third took
from its start to its first call, as a multiple of the time until it said itself that it was up.
All systems take turns within a round. A hand-written client that asks Consul before each call,
and gRPC's own round_robin over a fixed list, stand beside meshkit on the embedded registry and on
Consul.

FAILOVER="hang, gRPC" runs only what has both in its name.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import os
import re
import signal
import statistics
from collections.abc import Iterable, Sequence

import engines
from measure import BenchmarkError, Result, now, pace
from processes import Process, running

from failover.systems import System, systems
from failover.traffic import Answered, Call, Traffic

ROUNDS = 1
BEFORE, UNTIL_JOIN, AFTER = 3.0, 3.0, 7.0
# With --quick a hand-written instance may join too late to be seen.
BEFORE_QUICK, UNTIL_JOIN_QUICK, AFTER_QUICK = 1.0, 2.5, 4.0
SETTLE = 20.0
FAULTS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "hang": signal.SIGSTOP}
IN_FLIGHT = 5  # 200 calls/s of 20 ms are 4, of which those on one instance may be lost
HUNG = 5  # calls that an instance may take along when it hangs, and they can't be repeated
# The time of one try, and what a busy machine adds.
SLOWEST = 0.45
JOIN = 1.25
NUMBERS = re.compile(r"\b[0-9a-f]*\d[0-9a-f]*\b")  # so that errors of one kind are alike
COLUMNS = ("system", "fault", "failed", "last failure, s after", "slowest answered, ms", "join, s")


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """What one system showed under one fault. Times in seconds; None is "not seen"."""

    system: str
    idempotent: bool
    fault: str
    failed: int
    errors: Sequence[str]
    last_failure: float | None
    slowest: float
    joined: float | None
    join_ratio: float | None


async def run(rounds: int) -> list[Result]:
    trials: list[Trial] = []
    for _ in range(rounds):
        for fault in FAULTS:
            async with engines.running("local") as local, engines.running("consul") as consul:
                rows = zip(systems(local, consul), systems(local, consul), strict=True)
                for system, spare in rows:
                    if wanted(system, fault):
                        trials.append(await tried(system, spare, fault))
                        show(trials[-1])
    return judged(trials)


async def tried(system: System, spare: System, fault: str) -> Trial:
    """Run a system through a fault, a second time if need be: one bad start would cost all."""
    try:
        return await trial(system, fault)
    except BenchmarkError as error:
        print(f"  {system.name}  {fault}: {error}; once more", flush=True)
        return await trial(spare, fault)


def wanted(system: System, fault: str) -> bool:
    """Whether this trial is among those that were asked for."""
    words = os.environ.get("FAILOVER", "").split(",")
    return all(word.strip() in f"{fault}, {system.name}" for word in words)


def show(done: Trial) -> None:
    print(f"  {'  '.join(cells(done))}", flush=True)
    kinds = collections.Counter(NUMBERS.sub("N", error) for error in done.errors)
    for kind, count in kinds.items():
        print(f"    {count} x {kind}", flush=True)


async def trial(system: System, fault: str) -> Trial:
    """Run one system through one fault."""
    with contextlib.ExitStack() as stack:
        first, _ = [await start(system, stack) for _ in range(2)]
        async with system.caller() as call:
            await both_answer(call)
            traffic = Traffic(call)
            before = pace.of(BEFORE, quick=BEFORE_QUICK)
            until_join = pace.of(UNTIL_JOIN, quick=UNTIL_JOIN_QUICK)
            after = pace.of(AFTER, quick=AFTER_QUICK)
            running_traffic = asyncio.create_task(traffic.run(before + until_join + after))
            await asyncio.sleep(before)
            began = now()
            os.kill(first.pid, FAULTS[fault])
            await asyncio.sleep(until_join)
            third = await join(system, stack)
            await running_traffic
        if fault == "hang":
            os.kill(first.pid, signal.SIGCONT)
    return summary(system, fault, traffic.calls, began, third)


async def join(system: System, stack: contextlib.ExitStack) -> tuple[str, float, float] | None:
    """Start a third instance where that makes sense: who, when, and when it said it was up."""
    if not system.grows:
        return None
    spawned = now()
    process = stack.enter_context(launch(system))
    return str(process.pid), spawned, await system.ready(process)


async def start(system: System, stack: contextlib.ExitStack) -> Process:
    process = stack.enter_context(launch(system))
    await system.ready(process)
    return process


def launch(system: System) -> contextlib.AbstractContextManager[Process]:
    command, variables = system.command()
    return running(command, **variables)


async def both_answer(call: Call) -> None:
    """Call until two have answered: a hand-written one is listed only after its first check."""
    seen: set[str] = set()
    deadline = now() + SETTLE
    while len(seen) < 2:
        with contextlib.suppress(Exception):
            seen.add(await call())
        if now() > deadline:
            raise BenchmarkError(f"{len(seen)} of two instances answered within {SETTLE:.0f} s")
        await asyncio.sleep(0.02)


def summary(
    system: System,
    fault: str,
    calls: list[Answered],
    began: float,
    third: tuple[str, float, float] | None,
) -> Trial:
    failures = [each.began for each in calls if each.error]
    if early := [each for each in calls if each.error and each.began + each.seconds < began]:
        raise BenchmarkError(f"{system.name}: failed before the fault: {early[0].error}")
    joined = ratio = None
    if third is not None:
        pid, spawned, up = third
        answers = [each.began + each.seconds for each in calls if each.who == pid]
        if answers:
            joined = min(answers) - spawned
            ratio = joined / (up - spawned)
    return Trial(
        system.name,
        system.idempotent,
        fault,
        len(failures),
        [each.error for each in calls if each.error],
        max(failures) - began if failures else None,
        max((each.seconds for each in calls if not each.error), default=0.0),
        joined,
        ratio,
    )


def judged(trials: list[Trial]) -> list[Result]:
    """Return the rows with a limit; the whole table goes along with the first of them."""
    ours = [each for each in trials if each.system.startswith("meshkit")]
    safe = [each for each in ours if each.idempotent]
    unsafe = [each for each in ours if not each.idempotent]

    def row(name: str, limit: float, found: Iterable[float | None], unit: str) -> Result:
        values = [float("inf") if value is None else value for value in found]
        return Result(
            name=f"failover_{name}",
            limit=limit,
            values=values,
            unit=unit,
            note=theirs(name, trials),
            worst=True,
        )

    def of(fault: str, some: list[Trial]) -> list[Trial]:
        return [each for each in some if each.fault == fault]

    results = [
        row("kill", 0, (each.failed for each in of("kill", safe)), "failed"),
        row("kill_not_idempotent", IN_FLIGHT, (e.failed for e in of("kill", unsafe)), "failed"),
        row("term", 0, (each.failed for each in of("term", ours)), "failed"),
        row("hang", 0, (each.failed for each in of("hang", safe)), "failed"),
        row("hang_slowest", SLOWEST, (each.slowest for each in of("hang", safe)), "s"),
        row("hang_not_idempotent", HUNG, (e.failed for e in of("hang", unsafe)), "failed"),
        row("join", JOIN, ratios(ours), "x"),
    ]
    results = [each for each in results if each.values]
    if not results:
        raise BenchmarkError("FAILOVER names no trial of ours")
    return [dataclasses.replace(results[0], page=page(trials)), *results[1:]]


def ratios(trials: list[Trial]) -> list[float]:
    """Return the median alone: a start takes as long as a busy machine makes it."""
    found = [float("inf") if each.join_ratio is None else each.join_ratio for each in trials]
    return [statistics.median(found)] if found else []


def theirs(name: str, trials: list[Trial]) -> str:
    """Say what the other systems had, for the fault that ``name`` begins with."""
    fault = name.partition("_")[0]
    others = [each for each in trials if not each.system.startswith("meshkit")]
    if fault == "join":
        found = [each.joined for each in others if each.joined is not None]
        return f"others {min(found):.1f} - {max(found):.1f} s" if found else "others never"
    found_failed = [each.failed for each in others if each.fault == fault] or [0]
    return f"others {min(found_failed)} - {max(found_failed)} failed" * bool(others)


def cells(trial: Trial) -> tuple[str, ...]:
    late = "-" if trial.last_failure is None else f"{trial.last_failure:.2f}"
    joined = "-" if trial.joined is None else f"{trial.joined:.2f}"
    return (
        trial.system,
        trial.fault,
        str(trial.failed),
        late,
        f"{trial.slowest * 1e3:.0f}",
        joined,
    )


def page(trials: list[Trial]) -> str:
    """Return the whole table."""
    ordered = sorted(trials, key=lambda each: list(FAULTS).index(each.fault))
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, ordered)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
