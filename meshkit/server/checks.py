"""Running one health check within its time limit, whatever the check does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import inspect
import threading
import time
from collections.abc import Callable
from typing import Any

from meshkit.service import Check


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


class CheckRunner:
    """Runs one check again and again; one without ``async`` in a thread.

    Args:
        check: what to run.
        timeout: seconds, unless the check sets its own limit.
    """

    def __init__(self, check: Check, timeout: float) -> None:
        self._check = check
        self._limit = timeout if check.timeout is None else check.timeout
        self._thread: asyncio.Future[object] | None = None

    async def run(self) -> CheckResult:
        """Run the check once; whatever it raises is its result."""
        began = time.perf_counter()
        error: str | None = None
        limit = asyncio.timeout(self._limit)
        try:
            async with limit:
                answer = await self._answer()
            if answer is False:
                error = "returned False"
        except (Exception, asyncio.CancelledError) as problem:
            task = asyncio.current_task()
            if isinstance(problem, asyncio.CancelledError) and task and task.cancelling():
                raise  # it is us who are to end, not something that the check awaits
            error = f"{type(problem).__name__}: {problem}".rstrip(": ")
            if limit.expired():
                error = f"no answer within {self._limit:g} s"
        return CheckResult(self._check.name, time.perf_counter() - began, error)

    async def _answer(self) -> object:
        if inspect.iscoroutinefunction(self._check.run):
            return await self._check.run()
        # One that hangs is waited for again, not started again: threads can't be cancelled.
        if self._thread is None or self._thread.done():
            self._thread = in_thread(self._check.run)
        answer = await asyncio.shield(self._thread)
        return await answer if inspect.isawaitable(answer) else answer


def in_thread(function: Callable[[], object]) -> asyncio.Future[object]:
    """Call ``function`` in a daemon thread: one that hangs must not keep the process alive.

    The threads of asyncio's and concurrent.futures' pools do: both are joined at the end.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[object] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def deliver(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if not future.done():
            set_outcome(outcome)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], object]
        try:
            outcome = (future.set_result, function())
        except Exception as error:  # noqa: BLE001 - the waiting side's to handle
            outcome = (future.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(deliver, *outcome)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="meshkit-check", daemon=True).start()
    return future
