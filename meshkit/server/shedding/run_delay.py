"""How long this thread waited for a processor: what other programs take is no load of ours."""

from __future__ import annotations

import bisect
import os
import weakref
from collections.abc import Callable

EVERY = 0.005  # seconds between looks; one costs as much as a short system call
MOST = 4000  # looks that are remembered, 20 s at least

FILE = "/proc/thread-self/schedstat"


class RunDelay:
    """The time in which a thread was ready to run and did not, since any moment of late.

    Args:
        read: returns how long that was in all so far, in seconds. It is asked in the thread that
            uses this object.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._times: list[float] = []
        self._totals: list[float] = []

    def since(self, when: float, now: float) -> float:
        """Return the seconds between the two, both on the same clock; at most all of them."""
        times, totals = self._times, self._totals
        if not times or now - times[-1] >= EVERY:
            self._look(now)
        place = bisect.bisect(times, when)
        if place == len(times):
            return 0.0
        before = totals[place]
        if place:  # as if it had been even between two looks
            share = (times[place] - when) / (times[place] - times[place - 1])
            before -= (before - totals[place - 1]) * share
        return min(max(0.0, totals[-1] - before), max(0.0, now - when))

    def _look(self, now: float) -> None:
        if len(self._times) >= MOST:
            del self._times[: MOST // 2], self._totals[: MOST // 2]
        self._times.append(now)
        self._totals.append(self._read())


class ThreadRunDelay(RunDelay):
    """The kernel's own count of it, for the thread that asks first; 0 where there is none."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._opened = False
        super().__init__(self._total)

    def _total(self) -> float:
        if not self._opened:
            self._open()
        if self._file is None:
            return 0.0
        # Nanoseconds on a processor, nanoseconds waiting for one, and how often.
        # https://docs.kernel.org/scheduler/sched-stats.html
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9

    def _open(self) -> None:
        self._opened = True
        try:
            self._file = os.open(FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not Linux, or a kernel without it
            return
        weakref.finalize(self, os.close, self._file)
