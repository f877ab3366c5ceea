"""Open-loop traffic: calls start on a clock, whatever became of the earlier ones."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from tests.support.waiting import aeventually

WINDOWS = 8
LEAST_RATE = 25


class Load:
    """Steady calls in the background of a test.

    Attributes:
        answers: how often each answerer (whatever ``call`` returns) answered.
        errors: what failed, as text.
        seconds: how long each took, answered or not.
    """

    def __init__(self, call: Callable[[], Awaitable[str]], *, rate: float) -> None:
        self.answers: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        self.seconds: list[float] = []
        self.calls = 0
        self._call = call
        self._pause = 1 / rate
        self._tasks: set[asyncio.Task[None]] = set()
        self._driver: asyncio.Task[None] | None = None

    @property
    def under_way(self) -> int:
        """Calls that have neither been answered nor failed."""
        return self.calls - len(self.seconds)

    async def answered_by(self, count: int) -> None:
        """Wait until so many have answered, and a second longer for a steady stream."""

        async def all_have() -> bool:
            return len(self.answers) >= count

        await aeventually(all_have, within=60)
        await asyncio.sleep(1)

    async def p99(self, seconds: float) -> float:
        """Return what the slowest of a hundred calls take that end within the next seconds."""
        before = len(self.seconds)
        await asyncio.sleep(seconds)
        took = sorted(self.seconds[before:])
        assert took, "no call has ended"
        return took[int(len(took) * 0.99)]

    async def calm(self, limit: float) -> float:
        """Return the 99th percentile of the first window below ``limit``, or else the best one.

        A window may be slow for what else the machine does; all of them only for what they show.
        """
        best = await self.p99(2)
        for _ in range(WINDOWS - 1):
            if best < limit:
                break
            best = min(best, await self.p99(2))
        return best

    async def _drive(self) -> None:
        due = time.monotonic()
        while True:
            task = asyncio.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += self._pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one(self) -> None:
        self.calls += 1
        began = time.monotonic()
        try:
            self.answers[await self._call()] += 1
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            self.seconds.append(time.monotonic() - began)

    async def __aenter__(self) -> Self:
        self._driver = asyncio.create_task(self._drive())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._driver is not None
        self._driver.cancel()
        await asyncio.gather(self._driver, return_exceptions=True)
        await asyncio.gather(*self._tasks)


async def bearable(call: Callable[[], Awaitable[str]], *, rate: float, limit: float) -> float:
    """Return the calls a second, ``rate`` or less, that are answered while nothing is wrong.

    A fault is not to be judged by what the machine has no time for.

    Args:
        call: what is called.
        rate: calls a second.
        limit: seconds in which nearly all of them are to be answered.
    """
    while rate > LEAST_RATE:
        async with Load(call, rate=rate) as load:
            slowest = await load.p99(2)
        if not load.errors and slowest < limit:
            break
        rate /= 2
    return rate
