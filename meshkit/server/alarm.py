"""One timer of a connection, for what it waits for next."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol


class Waiting(Protocol):
    """Whoever wants to be told when its time is over."""

    def overdue(self) -> None:
        """Do something about it."""
        ...


class Alarm:
    """Rings for one at a time, who hardly ever waits that long.

    A timer of asyncio's costs more to set and cancel than all else that a deadline needs. So this
    one stays where it is when the next due time is later, and is set anew only when it has rung
    too early: once in many requests.
    """

    __slots__ = ("_due", "_rings", "_timer", "_who")

    def __init__(self) -> None:
        self._who: Waiting | None = None
        self._due = 0.0
        self._rings = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: float, who: Waiting) -> None:
        """Ring for ``who`` and nobody else, at ``due`` on ``time.monotonic()``."""
        self._who = who
        self._due = due
        if due < self._rings:
            self._wind()

    def forget(self, who: Waiting) -> None:
        """Do not ring for ``who``, if it is the one who waits."""
        if self._who is who:
            self._who = None

    def stop(self) -> None:
        """Let go of the timer, unless somebody waits."""
        if self._who is None and self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings = None, math.inf

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = self._due
        seconds = max(0.0, self._due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings = None, math.inf
        who = self._who
        if who is None:
            return
        if time.monotonic() < self._due:
            self._wind()
        else:
            self._who = None
            who.overdue()
