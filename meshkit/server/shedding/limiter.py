"""A concurrency limit that follows from latency, apart from all I/O."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable

from meshkit.server.shedding.baseline import Baseline, Window
from meshkit.server.shedding.run_delay import RunDelay

LEAST = 16  # requests at once that are never refused,
BURST = 2.0  # and up to so many times as many
SOON = 0.48  # if even one by one they are answered in so many seconds
TOLERANCE = 2.0  # times the usual latency that is still in order
EXCESS = 0.05  # seconds above the usual latency that nobody minds
SPAN = 0.2  # seconds of a window, at least
SAMPLES = 10  # and as many answers,
STALL = 2.0  # unless they do not come for so long
SUSPICIOUS = 2  # slow windows in a row after which there is a limit
CALM = 1.0  # seconds without a refusal after which there is none any more
GROWTH = 0.1  # of a limit within which answers take as long as they may,
MOST_GROWTH = 2.0  # up to this factor where they are faster: it was set too low
RISE = 60.0  # seconds: a slow day must last before it counts as usual
FALL = 10.0
RELEARN = 1.0
MOMENT = 0.001  # seconds


class Limiter:
    """Refuses requests while more are under way than can be answered in time.

    Normally there is no limit, and latencies are only learned. Two windows in a row whose answers
    took more than twice the usual (and 50 ms more) show that requests wait for each other. From
    then on as many are let in as, by Little's law, pass at the present throughput within the
    latency that is in order; the limit grows while it is, and falls when it is not. A second
    without a refusal ends it.

    The limit from throughput and latency is that of BBR (Cardwell et al., ACM Queue 2016; as a
    limiter: Sentinel, kratos' aegis), the trigger from a long against a short average of latency
    is that of Netflix's concurrency-limits (Gradient2). BBR alone needs the machine's CPU as a
    trigger, and so does not see a full connection pool; Gradient2 alone limits by default, and
    its baseline follows a lasting overload upwards. Here the baseline rests while there is a
    limit, and is learned anew where it can be seen: at the least concurrency.

    Time in which this process was ready to run while others had the processor counts for nothing:
    it makes answers late, but not by anything that fewer of them at once would change.

    Not safe for threads: one for each event loop.

    Args:
        adaptive: False for the fixed limit alone.
        ceiling: requests at once that are never exceeded, whatever their latency.
        least: requests at once that the adaptive limit never goes below.
        clock: seconds; simulated in tests.
        delay: how much of them passed while others had the processor; None for nothing.

    Attributes:
        in_flight: admitted and not yet released.
        limit: requests at once that are let in at present; infinite while nothing is slow.
        refused: how many have been refused so far.
    """

    def __init__(
        self,
        *,
        adaptive: bool = True,
        ceiling: int | None = None,
        least: int = LEAST,
        clock: Callable[[], float] = time.perf_counter,
        delay: RunDelay | None = None,
    ) -> None:
        self.in_flight = 0
        self.limit = self._ceiling = math.inf if ceiling is None else float(ceiling)
        self.refused = 0
        self._adaptive = adaptive
        self._least = self._floor = float(least)
        self._clock = clock
        self._delay = delay
        self._baseline = Baseline()
        self._limiting = False
        self._slow = 0  # windows in a row
        self._doubtful = math.inf  # a latency at which the limit does not help
        self._rate = 0.0  # answers a second in the last window
        self._began = self._changed = self._refused_at = clock()
        self._window_end = self._began + SPAN
        self._released = 0

    def acquire(self, came: float | None = None) -> float | None:
        """Let a request in; return when it came, or None when it is refused.

        Args:
            came: when it came, on the limiter's clock; None for now. Meanwhile others were
                served: that tells how many more wait with it, as far as this process can know.
        """
        if came is None:
            came = self._clock()
        if self.limit != math.inf:  # seldom, so the time is not asked for otherwise
            now = self._clock()
            at_once = self.in_flight + self._own(came, now) * self._rate
            if at_once >= self.limit and self._over(at_once, now):
                return None
        self.in_flight += 1
        return came

    def release(self, came: float, kind: Hashable, *, ok: bool = True) -> None:
        """End a request that ``acquire`` let in.

        Args:
            came: what ``acquire`` returned.
            kind: what it is to be compared with: its route or method.
            ok: whether it was answered with success; a failure never counts as fast.
        """
        self.in_flight -= 1
        self._released += 1
        now = self._clock()
        if came >= self._changed:  # others tell of how it was before the last change
            self._baseline.add(kind, self._own(came, now), ok=ok)
        if now >= self._window_end and self._baseline.count >= SAMPLES:
            self._end_window(now)

    def forget(self) -> None:
        """End a request whose latency tells nothing."""
        self.in_flight -= 1
        self._released += 1

    def _own(self, since: float, now: float) -> float:
        """Return the seconds between two moments in which this process could run."""
        return now - since if self._delay is None else now - since - self._delay.since(since, now)

    def _over(self, at_once: float, now: float) -> bool:
        if self.in_flight < self._ceiling:
            if not self._limiting:
                return False
            if now - self._began >= STALL and self._released < SAMPLES:
                self._stalled(now)
                if at_once < self.limit:
                    return False
        self.refused += 1
        self._refused_at = now
        return True

    def _stalled(self, now: float) -> None:
        """Let more in: what hangs must not keep everybody else out."""
        self._rate = self._released / max(MOMENT, self._own(self._began, now))
        self._set(max(self.limit, self.in_flight) + self._least, now)
        self._begin_window(now)

    def _end_window(self, now: float) -> None:
        seconds = now - self._began
        self._rate = self._released / max(MOMENT, self._own(self._began, now))
        window = self._baseline.window()
        target = max(window.usual * TOLERANCE, window.usual + EXCESS)
        self._floor = max(self._least, min(BURST * self._least, SOON / max(window.usual, MOMENT)))
        slow = window.latency > target
        self._slow = self._slow + 1 if slow else 0
        if self._limiting:
            self._follow(window, target, now)
        elif not slow:
            self._baseline.learn(seconds / RISE, seconds / FALL)
        elif self._slow >= SUSPICIOUS and self._adaptive:
            self._restrict(window, target, now)
        self._begin_window(now)

    def _restrict(self, window: Window, target: float, now: float) -> None:
        self._limiting = True
        self._refused_at = now
        self._set(self._rate * target, now)
        expected = self.limit / self._rate
        apart = expected < window.latency / 2
        self._doubtful = (expected + window.latency) / 2 if apart else math.inf

    def _follow(self, window: Window, target: float, now: float) -> None:
        slow, doubtful = window.latency > target, self._doubtful
        self._doubtful = math.inf
        if window.latency > doubtful:
            # Fewer at once are hardly faster, so it was not that they waited for each other.
            self._baseline.learn(1.0, 1.0)
            self._release_limit()
        elif slow:
            if self.limit <= self._floor:
                share = (now - self._began) / RELEARN
                self._baseline.learn(share, share)
            self._set(min(self.limit, self._rate * target), now)
        elif now - self._refused_at > CALM:
            self._release_limit()
        elif self._refused_at >= self._began:
            room = min(MOST_GROWTH, target / max(window.latency, MOMENT))
            self.limit = min(self._ceiling, self.limit * max(1.0 + GROWTH, room))

    def _release_limit(self) -> None:
        self._limiting = False
        self._slow = 0
        self.limit = self._ceiling

    def _set(self, limit: float, now: float) -> None:
        self.limit = min(self._ceiling, max(self._floor, limit))
        self._changed = now

    def _begin_window(self, now: float) -> None:
        self._baseline.clear()
        self._released = 0
        self._began = now
        self._window_end = now + SPAN
