"""Slow start: a new instance gets its share of the calls little by little."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from meshkit.discovery.balancing.memory import Clock
from meshkit.model import Instance

SLOW_START = 15.0  # seconds
LEAST = 0.1  # of its weight, at the beginning (as Envoy's min_weight_percent)
STEPS = 10  # weights are computed so many times on the way up, never per call


class SlowStart:
    """By what to multiply each instance's weight: from a tenth to 1, evenly over some seconds.

    A process that has just started has cold caches and a compiler or pool to warm up; its full
    share at once makes its first calls slow. Its age counts from when this caller has first seen
    it or from when it says that it started, whichever is longer ago. Whoever was in the first
    list and does not say is taken for old.

    Those who are established never get more than if the new ones were not there: unless they are
    at least half of all, nobody is held back. So it is at the callers' own start and after a
    deployment that exchanges everybody.

    Args:
        seconds: from a tenth to full; 0 for no slow start.
        clock: seconds, of any clock that only goes forward.
        wall: seconds since the epoch, as instances tell when they started.
    """

    def __init__(
        self,
        seconds: float = SLOW_START,
        *,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._wall = wall
        self._begun_at: float | None = None
        self._first_list: frozenset[str] = frozenset()
        self._seen: dict[str, float] = {}

    def see(self, instances: Sequence[Instance]) -> None:
        """Take note of a list, before its factors are asked for."""
        now = self._clock()
        if self._begun_at is None and instances:
            self._begun_at = now
            self._first_list = frozenset(each.id for each in instances)
        self._seen = {each.id: self._seen.get(each.id, now) for each in instances}

    def factors(self, instances: Sequence[Instance]) -> tuple[list[float], float | None]:
        """Return a factor for each, and in how many seconds to ask again if any will change."""
        if not self._seconds:
            return [1.0] * len(instances), None
        now, wall = self._clock(), self._wall()
        ages = [self._age(each, now, wall) for each in instances]
        new = sum(age < self._seconds for age in ages)
        if not new:
            return [1.0] * len(instances), None
        again = self._seconds / STEPS
        if 2 * new > len(ages):
            return [1.0] * len(instances), again
        return [min(LEAST + (1 - LEAST) * age / self._seconds, 1.0) for age in ages], again

    def _age(self, instance: Instance, now: float, wall: float) -> float:
        seen = now - self._seen.get(instance.id, now)
        if instance.started_at > 0:
            return max(seen, wall - instance.started_at)  # its clock may be ahead of ours
        return math.inf if instance.id in self._first_list else seen
