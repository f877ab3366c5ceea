"""Sums over the last seconds, at a cost that does not depend on how much was added."""

from __future__ import annotations

import time
from collections.abc import Callable

SLOTS = 10


class SlidingSum:
    """The sum of what was added within the last ``seconds``, a tenth more or less.

    Time is cut into slots; what is in the oldest one is forgotten as a whole. Amounts are whole
    numbers, so that nothing is left over when all of it has gone.
    """

    __slots__ = ("_clock", "_current", "_end", "_slots", "_total", "_width")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._width = seconds / SLOTS
        self._slots = [0] * SLOTS
        self._current = 0
        self._end = clock() + self._width  # of the current slot
        self._total = 0

    def add(self, amount: int) -> None:
        """Add to the current slot."""
        if self._clock() >= self._end:
            self._turn()
        self._slots[self._current] += amount
        self._total += amount

    def total(self) -> int:
        """Return the sum."""
        if self._clock() >= self._end:
            self._turn()
        return self._total

    def clear(self) -> None:
        """Forget everything."""
        self._slots = [0] * SLOTS
        self._total = 0

    def _turn(self) -> None:
        passed = int((self._clock() - self._end) / self._width) + 1
        self._end += passed * self._width
        for _ in range(min(passed, SLOTS)):
            self._current = (self._current + 1) % SLOTS
            self._total -= self._slots[self._current]
            self._slots[self._current] = 0
