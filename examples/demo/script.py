"""What happens in the demo, and when."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from census import Census
from interrupt import Interrupt
from processes import CALL_TIMEOUT, POLL, Child, Children, DemoError, clean_environment
from report import Report, print_json, print_text
from traffic import Traffic
from view import Scene, View, open_view

from meshkit import Mesh, MeshError

USERS, ORDERS = 3, 2
WARM_UP = 2 * USERS * ORDERS  # calls: every orders to every users, over both transports
START_LIMIT = 60.0  # seconds until all are registered
PATIENCE = 40.0  # seconds past the planned end for what has not happened by then
MANY = 50  # calls that surely reach each instance once
KILL, STOP, ADD = 0.25, 0.45, 0.65  # moments, as parts of the planned time


def play(interrupt: Interrupt, *, registry: str, seconds: float, rate: float, as_json: bool) -> int:
    """Run the demo, print what came of it, and return the exit code."""
    progress = sys.stderr if as_json else sys.stdout
    try:
        report = interrupt.run(run(registry, seconds=seconds, rate=rate, view=open_view(progress)))
    except (DemoError, MeshError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    (print_json if as_json else print_text)(report)
    return 1 if report.problems else 0


async def run(registry: str, *, seconds: float, rate: float, view: View) -> Report:
    """Run the demo in a folder of its own, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="meshkit-demo-") as folder:
        environment = clean_environment() | {"MESHKIT_STATE_DIR": f"{folder}/state"}
        os.environ.clear()  # our own calls must not see other settings than the children
        os.environ.update(environment)
        with view, Children(Path(folder), registry=registry) as children:
            async with Mesh(registry, timeout=CALL_TIMEOUT) as mesh:
                return await Demo(mesh, children, view, rate=rate).run(seconds)


class Demo:
    """One run of the script."""

    def __init__(self, mesh: Mesh, children: Children, view: View, *, rate: float) -> None:
        self.children = children
        self.view = view
        self.census = Census(mesh, "users", "orders")
        in_turn = mesh.http("orders", balancer="round_robin", slow_start=0)
        self.traffic = Traffic(mesh.http("orders"), in_turn, rate=rate)
        self.scene = Scene(children=children, census=self.census, tally=self.traffic.tally)

    async def run(self, seconds: float) -> Report:
        """Play it. Raises DemoError or MeshError when it can't be played to its end."""
        failures: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as group:
                watching = [
                    group.create_task(self.census.run()),
                    group.create_task(self.view.run(self.scene)),
                ]
                report = await self._play(group, seconds)
                for task in watching:
                    task.cancel()
        except* (DemoError, MeshError) as errors:
            failures.extend(errors.exceptions)
        if failures:
            raise failures[0]
        return report

    async def _play(self, group: asyncio.TaskGroup, seconds: float) -> Report:
        first = await self._start_all()
        start = time.monotonic()
        self.view.event("steady traffic starts")
        traffic = group.create_task(self.traffic.run())
        retries = group.create_task(self._follow_retries())
        await self._sleep_until(start + KILL * seconds)
        killed = self._signal(first[0], signal.SIGKILL, "killed")
        await self._sleep_until(start + STOP * seconds)
        stopped = self._signal(first[1], signal.SIGTERM, "stopped")
        await self._sleep_until(start + ADD * seconds)
        added = self._start("users")
        await self._sleep_until(start + seconds)
        await self._wait(lambda: self._all_happened(killed, stopped, added), PATIENCE)
        self.traffic.stop()
        await traffic
        retries.cancel()
        await self._read_all_retries()
        return Report.of(
            self.scene,
            seconds=time.monotonic() - start,
            killed=killed,
            stopped=stopped,
            added=added,
        )

    async def _start_all(self) -> list[Child]:
        children = [self._start("users") for _ in range(USERS)]
        children += [self._start("orders") for _ in range(ORDERS)]
        labels = {child.label for child in children}
        if not await self._wait(lambda: labels <= self.census.up, START_LIMIT):
            missing = sorted(labels - self.census.up)
            raise DemoError(
                f"not registered within {START_LIMIT:.0f} s: {', '.join(missing)}; "
                f"the log of {missing[0]} ends with:\n{self.children.tail(missing[0])}"
            )
        self.view.event(f"all {len(children)} instances are registered")
        await self.traffic.warm_up(WARM_UP)
        return children

    async def _follow_retries(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self.traffic.read_retries()

    async def _read_all_retries(self) -> None:
        """Call orders until each instance of it has told the final number."""
        orders = (child for child in self.children.all if child.service == "orders")
        missing = {self.census.instance_id(child.label) for child in orders}
        for _ in range(MANY):
            missing.discard(await self.traffic.read_retries())
            if not missing:
                return
        raise DemoError(f"not reached in {MANY} calls to orders: {', '.join(missing)}")

    def _start(self, service: str) -> Child:
        child = self.children.start(service)
        self.view.event(f"start {child.label} (pid {child.process.pid})")
        return child

    def _signal(self, child: Child, number: signal.Signals, fate: str) -> Child:
        child.send(number, fate)
        self.view.event(f"{number.name} to {child.label} (pid {child.process.pid})")
        return child

    def _all_happened(self, killed: Child, stopped: Child, added: Child) -> bool:
        return (
            killed.label in self.census.left_at
            and not stopped.alive
            and self.scene.calls(added) > 0
        )

    async def _sleep_until(self, moment: float) -> None:
        await self._wait(lambda: time.monotonic() >= moment, max(0.0, moment - time.monotonic()))

    async def _wait(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait up to ``limit`` seconds while all processes live; tell whether it came true."""
        end = time.monotonic() + limit
        while not (true := condition()) and time.monotonic() < end:
            self.children.check()
            await asyncio.sleep(POLL)
        return true
