"""Time that passes when told to, and timers that know it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """Call it for the time; :meth:`later` is a loop's ``call_later``."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, function: Callable[[], None]) -> Timer:
        timer = Timer(function)
        heapq.heappush(self._timers, (self.now + seconds, next(self._count), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that is due in it."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.function()
        self.now = end

    @property
    def timers(self) -> int:
        """How many are waiting."""
        return sum(not timer.cancelled for _, _, timer in self._timers)


class Timer:
    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
