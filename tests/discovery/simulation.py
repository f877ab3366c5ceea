"""Calls through a balancer on a clock that jumps from event to event."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from meshkit.discovery.balancing import Balancer, Candidate, Done, Outcome
from meshkit.model import Instance
from tests.discovery.values import instance

HANGS = 1e9  # seconds that no simulation lasts


@dataclasses.dataclass
class Behaviour:
    """How an instance answers: after how long, and how well."""

    seconds: float = 0.02
    outcome: Outcome = Outcome.OK
    jitter: float = 0.2  # of the seconds, to both sides


class Make(Protocol):
    """Makes a balancer with the simulation's clock and random numbers."""

    def __call__(self, *, clock: Callable[[], float], random: Callable[[], float]) -> Balancer: ...


class Simulation:
    """Open-loop callers of one service.

    Attributes:
        now: seconds.
        calls: by the number of the instance, since the last :meth:`run` began.
        behaviour: by number; who is not in it behaves as the default.
    """

    def __init__(self, make: Make, *, seed: int = 1) -> None:
        self.now = 1000.0
        self.calls: Counter[int] = Counter()
        self.behaviour: dict[int, Behaviour] = {}
        self.random = random.Random(seed)
        self.balancer = make(clock=lambda: self.now, random=self.random.random)
        self._ends: list[tuple[float, int, Done, Outcome, float]] = []
        self._order = itertools.count()
        self._numbers: dict[str, int] = {}

    def update(self, numbers: Sequence[int], weights: Sequence[float] | None = None) -> None:
        self._numbers = {instance(number).id: number for number in numbers}
        self.balancer.update(
            [
                Candidate(instance(number), weight)
                for number, weight in zip(numbers, weights or [1.0] * len(numbers), strict=True)
            ]
        )

    def run(self, seconds: float, rate: float) -> Counter[int]:
        """Make calls at random times, ``rate`` a second; return how many each instance got."""
        self.calls = Counter()
        until = self.now + seconds
        while (arrival := self.now + self.random.expovariate(rate)) < until:
            self._end_until(arrival)
            self.call()
        self._end_until(until)
        return self.calls

    def run_one_by_one(self, count: int) -> Counter[int]:
        """Make so many calls, each after the last one has ended."""
        self.calls = Counter()
        for _ in range(count):
            self.call()
            self._end_until(max(self.now, min(self._ends)[0]))
        return self.calls

    def call(self) -> None:
        """Begin one call."""
        picked = self.balancer.pick((), None)
        assert picked is not None
        number = self._numbers[picked[0].id]  # KeyError: somebody who has left
        self.calls[number] += 1
        how = self.behaviour.get(number, Behaviour())
        seconds = how.seconds * self.random.uniform(1 - how.jitter, 1 + how.jitter)
        heapq.heappush(
            self._ends, (self.now + seconds, next(self._order), picked[1], how.outcome, seconds)
        )

    def _end_until(self, time: float) -> None:
        while self._ends and self._ends[0][0] <= time:
            self.now, _, done, outcome, seconds = heapq.heappop(self._ends)
            done(outcome, seconds)
        self.now = time


def share(calls: Counter[int], number: int) -> float:
    """Return what part of the calls went to this instance."""
    return calls[number] / calls.total()


__all__ = ["HANGS", "Behaviour", "Instance", "Make", "Simulation", "share"]
