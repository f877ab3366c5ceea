"""One health state; HTTP, gRPC and the registry all show this one."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Sequence

from meshkit.server.checks import CheckResult, CheckRunner
from meshkit.service import Check

FRESH = 0.5  # seconds for which a round of checks answers further questions

log = logging.getLogger("meshkit.health")


class Phase(enum.StrEnum):
    """Where the service is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


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
        self._checks = tuple(CheckRunner(check, timeout) for check in checks)
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
        if phase is Phase.SERVING and not self.passing:
            log.warning("not ready: %s", self.failures)
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
            self.results = tuple(await asyncio.gather(*(each.run() for each in self._checks)))
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
