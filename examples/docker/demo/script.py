"""What happens in the demo, and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TextIO

from clusters import Cluster
from compose import Compose, DemoError
from follow import Followed

FIRST_LIMIT = 180.0  # seconds from the start of the containers to the first successful call
HEALTH_LIMIT = 120.0
TRUTH_LIMIT = 90.0  # a killed container is forgotten after 20 s at most
END_LIMIT = 60.0
POLL = 0.5
TELL = 5.0  # seconds between the lines that show the tally
USERS = 2  # containers of users at the start; there is one of users-v2 besides
SERVICES = ("users", "users-v2", "orders")
REGISTERED = "stock"  # the service that the registrator registers

TRUTH = "the registry shows who runs, and nobody else"

Step = tuple[str, Callable[[], Awaitable[None]]]


class Demo:
    """One run of the script.

    Args:
        compose: the project.
        cluster: its registry's servers.
        seconds: least length of the traffic; what happens is spread over it.
        leaders: how many leaders are killed, one after the other has come back.
        output: progress is written here.
    """

    def __init__(
        self, compose: Compose, cluster: Cluster, *, seconds: float, leaders: int, output: TextIO
    ) -> None:
        self._compose = compose
        self._cluster = cluster
        self._seconds = seconds
        self._leaders = leaders
        self._output = output
        self._began = time.monotonic()
        self._load = Followed()
        self._problems: list[str] = []
        self._events: list[tuple[float, str]] = []

    async def run(self) -> dict[str, Any]:
        """Play it and return the report. Raises DemoError when it can't be played to its end."""
        self._say(f"docker compose up --build (project {self._compose.project})")
        await self._compose.up()
        self._say("all containers are started")
        failures: list[BaseException] = []
        try:
            async with asyncio.TaskGroup() as group:
                following = group.create_task(self._load.run(self._compose))
                telling = group.create_task(self._tell())
                report = await self._play()
                for task in (following, telling):
                    task.cancel()
        except* DemoError as errors:
            failures.extend(errors.exceptions)
        if failures:
            raise failures[0]
        return report

    async def _play(self) -> dict[str, Any]:
        await self._load.first(FIRST_LIMIT)
        first = time.monotonic() - self._began
        self._say(f"first successful call, {first:.1f} s after a cold start")
        await self._until(self._cluster.healthy, HEALTH_LIMIT, "the registry's servers are well")
        began = time.monotonic()
        steps = self._steps()
        for number, (name, act) in enumerate(steps):
            await asyncio.sleep(began + self._seconds * number / len(steps) - time.monotonic())
            self._say(name)
            await act()
        await asyncio.sleep(began + self._seconds - time.monotonic())
        await self._until(self._true, TRUTH_LIMIT, TRUTH)
        seconds = time.monotonic() - began
        await self._compose("stop", "load")
        await self._load.end(END_LIMIT)
        return self._report(first=first, seconds=seconds)

    def _steps(self) -> list[Step]:
        agent = self._cluster.agent
        steps: list[Step] = [
            ("docker kill a container of users", self._kill),
            ("scale users up to 4", self._grow),
            ("docker stop another container of users", self._stop),
            ("scale users down to 2", lambda: self._compose.scale("users", USERS)),
        ]
        if agent is not None:
            steps += [
                (f"restart {agent}", lambda: self._restart(agent)),
                (f"restart {agent} with an emptied data folder", lambda: self._empty(agent)),
            ]
        return steps + [("docker kill the leader", self._kill_leader)] * self._leaders

    async def _kill(self) -> None:
        await self._compose.docker("kill", (await self._compose.containers("users"))[0])

    async def _grow(self) -> None:
        await self._compose.scale("users", 4)
        await self._until(self._true, TRUTH_LIMIT, TRUTH)

    async def _stop(self) -> None:
        container = (await self._compose.containers("users"))[-1]
        await self._compose.docker("stop", "--time", "40", container)
        state = await self._compose.docker("inspect", "-f", "{{.State.ExitCode}}", container)
        if state.strip() != "0":
            self._problems.append(f"the stopped container ended with {state.strip()}")

    async def _restart(self, service: str) -> None:
        await self._compose("restart", service)
        await self._until(self._true, TRUTH_LIMIT, TRUTH)

    async def _empty(self, service: str) -> None:
        await self._compose("rm", "--stop", "--force", service)
        await self._compose.docker("volume", "rm", f"{self._compose.project}_{service}")
        await self._compose("up", "--detach", "--no-deps", service)
        # As with autopilot: one loss at a time. A leader that dies before it has taken the agent
        # back leaves it, and all that is registered there, to what its successor makes of it.
        await self._until(self._true, TRUTH_LIMIT, TRUTH)

    async def _kill_leader(self) -> None:
        leader = await self._cluster.leader()
        if leader is None:
            raise DemoError("there is no leader to be killed")
        (container,) = await self._compose.containers(leader)
        await self._compose.docker("kill", container)
        self._say(f"  it was {leader}")

        async def another() -> bool:
            return await self._cluster.leader() not in (None, leader)

        await self._until(another, HEALTH_LIMIT, "another one leads")
        await self._compose.docker("start", container)
        await self._until(self._cluster.healthy, HEALTH_LIMIT, f"{leader} is back, and votes")

    async def _true(self) -> bool:
        """Whether the registry shows as up exactly the containers that run.

        Those of stock are shown by the registrator, under ids of another form.
        """
        running = {each[:12] for each in await self._compose.containers(*SERVICES)}
        others = await self._compose.containers(REGISTERED)
        try:
            shown = json.loads(await self._compose.exec("orders", "meshkit", "ps", "--json"))
            registered = await self._cluster.at_agent()
        except (DemoError, ValueError):  # the registry is away
            return False
        up = [each for each in shown if each["status"] == "up"]
        # An instance's id has its host in it, which is the container's id.
        own = {each["id"].split("-")[-3] for each in up if each["service"] != REGISTERED}
        sure = registered is None or registered == len(shown)
        return sure and own == running and len(up) - len(own) == len(others)

    async def _until(self, true: Callable[[], Awaitable[bool]], limit: float, what: str) -> None:
        deadline = time.monotonic() + limit
        while not await true():
            if time.monotonic() > deadline:
                raise DemoError(f"within {limit:.0f} s it did not come to this: {what}")
            await asyncio.sleep(POLL)
        self._say(f"  {what}")

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL)
            tally = self._load.tally
            if tally.get("event") == "tally":
                self._print(
                    f"  {tally['calls']} calls, {tally['failed']} failed, "
                    f"{tally['retried']} retried"
                )

    def _say(self, text: str) -> None:
        self._events.append((round(time.monotonic() - self._began, 1), text))
        self._print(text)

    def _print(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(f"{time.monotonic() - self._began:6.1f} s  {text}", file=self._output, flush=True)

    def _report(self, *, first: float, seconds: float) -> dict[str, Any]:
        tally = self._load.tally
        problems = list(self._problems)
        if tally["failed"]:
            problems.append(f"{tally['failed']} calls failed")
            problems += [f"{count} x {error}" for error, count in tally["errors"].items()]
        if unanswered := tally["calls"] - tally["answered"] - tally["failed"]:
            problems.append(f"{unanswered} calls got no answer")
        names = ("calls", "answered", "failed", "retried", "p50_ms", "p99_ms")
        return {
            "problems": problems,
            "first_call_after": round(first, 1),
            "seconds": round(seconds, 1),
            **{name: tally[name] for name in names},
            "users": len(tally["answers"]),
            "events": self._events,
        }
