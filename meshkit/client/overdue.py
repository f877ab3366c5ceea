"""Noticing attempts that take too long, without a timer for each.

Nearly all calls are over long before. A timer of asyncio's costs about as much as choosing an
instance; a queue costs a tenth of it, as calls that begin later are due later.
"""

from __future__ import annotations

import asyncio
import collections
import time
from typing import Protocol

# A timer that fires so late says that this process was busy, not that nobody answered: what has
# arrived meanwhile is read first.
STALLED = 0.05
GRACE = 0.02


class Waiting(Protocol):
    """An attempt under way.

    Attributes:
        due: when it is overdue, on the monotonic clock.
        over: it has ended.
    """

    due: float
    over: bool

    def overdue(self) -> None:
        """Do something about it; called at most once, and not when it is over."""
        ...


class Overdue:
    """A queue of attempts in the order in which they are due, and one timer for the first.

    All that wait here wait about equally long: an attempt is never due before those that were
    added before it.
    """

    __slots__ = ("_attempts", "_expected", "_last", "_timer")

    def __init__(self) -> None:
        self._attempts: collections.deque[Waiting] = collections.deque()
        self._last = 0.0
        self._expected = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, attempt: Waiting, due: float) -> None:
        """Watch an attempt."""
        due = max(due, self._last)
        self._last = attempt.due = due
        self._attempts.append(attempt)
        if self._timer is None:
            self._arm(due)

    def forget(self, attempt: Waiting) -> None:
        """Let go of an attempt that has ended."""
        attempt.over = True
        attempts = self._attempts
        while attempts and attempts[0].over:
            attempts.popleft()

    def _arm(self, due: float) -> None:
        delay = max(due - time.monotonic(), 0.0)
        self._expected = time.monotonic() + delay
        self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        attempts = self._attempts
        if now > self._expected + STALLED and attempts:
            self._arm(now + GRACE)
            return
        while attempts:
            first = attempts[0]
            if not first.over and first.due > now:
                self._arm(first.due)
                return
            attempts.popleft()
            if not first.over:
                first.overdue()

    def __len__(self) -> int:
        return len(self._attempts)
