"""One health state; HTTP, gRPC and the registry all show this one."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import inspect
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from meshkit.service import Check

FRESH = 0.5  # seconds for which a round of checks answers further questions

log = logging.getLogger("meshkit.health")


class Phase(enum.StrEnum):
    """Where the service is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


@dataclasses.dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check went; ``error`` is None when it passed, ``latency`` is in seconds."""

    name: str
    latency: float
    error: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the JSON answer."""
        return {
            "ok": self.error is None,
            "latency_ms": round(self.latency * 1000, 3),
            "error": self.error,
        }


class Health:
    """The service is ready while it serves and every check passes.

    Args:
        checks: what readiness depends on.
        timeout: seconds for a check that sets none of its own.
        interval: seconds between rounds while the service runs.
    """

    def __init__(self, checks: Sequence[Check], *, timeout: float, interval: float) -> None:
        self.phase = Phase.STARTING
        self.results: tuple[CheckResult, ...] = ()
        self.lag = 0.0  # seconds the event loop was last seen stuck, set by the heartbeat
        self._checks = tuple(checks)
        self._timeout = timeout
        self._interval = interval
        self._checked_at = -FRESH
        self._round: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[bool], None]] = []
        self._shown = False

    @property
    def ready(self) -> bool:
        """Whether calls should come here."""
        return self.phase is Phase.SERVING and self.passing

    @property
    def passing(self) -> bool:
        """Whether the last round of checks passed."""
        return all(result.error is None for result in self.results)

    @property
    def failures(self) -> str:
        """The failing checks in one line, empty when there are none."""
        return "; ".join(f"{each.name}: {each.error}" for each in self.results if each.error)

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call ``listener`` with readiness whenever it changes."""
        self._listeners.append(listener)

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase."""
        self.phase = phase
        self._show()

    async def check(self) -> None:
        """Run all checks at once, unless a round has just ended; join one that is under way."""
        if not self._checks or time.monotonic() - self._checked_at < FRESH:
            return
        if self._round is None:
            self._round = asyncio.create_task(self._run_checks(), name="meshkit-health-checks")
        await asyncio.shield(self._round)

    def start(self) -> None:
        """Run the checks every ``interval`` seconds; without checks there is nothing to run."""
        if self._checks and self._loop is None:
            self._loop = asyncio.create_task(self._repeat(), name="meshkit-health")

    async def aclose(self) -> None:
        """Stop running checks. Closing twice is safe."""
        tasks = [task for task in (self._loop, self._round) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.check()

    async def _run_checks(self) -> None:
        try:
            self.results = tuple(
                await asyncio.gather(*(run_check(each, self._timeout) for each in self._checks))
            )
        finally:
            self._checked_at = time.monotonic()
            self._round = None
        self._show()

    def _show(self) -> None:
        if self.ready == self._shown:
            return
        self._shown = self.ready
        if self.phase is Phase.SERVING:
            if self.ready:
                log.info("ready")
            else:
                log.warning("not ready: %s", self.failures)
        for listener in self._listeners:
            listener(self.ready)


async def run_check(check: Check, default_timeout: float) -> CheckResult:
    """Run one check within its time limit; a check without ``async`` runs in a thread."""
    limit = default_timeout if check.timeout is None else check.timeout
    began = time.perf_counter()
    error: str | None = None
    try:
        async with asyncio.timeout(limit):
            if inspect.iscoroutinefunction(check.run):
                answer = await check.run()
            else:
                answer = await asyncio.to_thread(check.run)
        if answer is False:
            error = "returned False"
    except TimeoutError:
        error = f"no answer within {limit:g} s"
    except Exception as problem:  # noqa: BLE001 - whatever it raises is what it reports
        error = f"{type(problem).__name__}: {problem}".rstrip(": ")
    return CheckResult(check.name, time.perf_counter() - began, error)
