"""Servers on a simulated clock, with open-loop callers who give up at their deadline."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Iterator

from meshkit.server.shedding import Limiter

Service = Callable[[random.Random, float], tuple[str, float]]
Queue = deque[tuple[float, float, str, float]]
Busy = list[tuple[float, int, float, float, str]]


@dataclasses.dataclass(slots=True)
class Tally:
    """What became of the calls that came in one span of time."""

    offered: int = 0
    refused: int = 0
    answered: int = 0
    in_time: int = 0


@dataclasses.dataclass(slots=True)
class World:
    """The clock, and what became of the calls by the second in which they came.

    Attributes:
        now: what all clocks show.
        delayed: how much of it the process was kept from running, by others.
    """

    now: float = 0.0
    delayed: float = 0.0
    seconds: dict[int, Tally] = dataclasses.field(default_factory=dict)
    most_in_flight: int = 0

    def clock(self) -> float:
        return self.now

    def at(self, when: float) -> Tally:
        return self.seconds.setdefault(int(when), Tally())

    def between(self, start: int, end: int) -> Tally:
        total = Tally()
        for second in range(start, end):
            tally = self.at(second)
            total.offered += tally.offered
            total.refused += tally.refused
            total.answered += tally.answered
            total.in_time += tally.in_time
        return total


def arrivals(rate: Callable[[float], float], until: float, seed: int) -> Iterator[float]:
    """Poisson arrivals whose rate changes over time."""
    rng = random.Random(seed)
    now = 0.0
    while now < until:
        now += rng.expovariate(rate(now))
        yield now


def constant(seconds: float, kind: str = "GET /") -> Service:
    return lambda _rng, _now: (kind, seconds)


def spread(mean: float, kind: str = "GET /") -> Service:
    return lambda rng, _now: (kind, rng.expovariate(1 / mean))


class Pool:
    """``size`` workers and a queue before them, such as a connection pool of a database."""

    def __init__(
        self, limiter: Limiter, world: World, service: Service, *, size: int, deadline: float = 1.0
    ) -> None:
        self._limiter = limiter
        self._world = world
        self._service = service
        self._size = size
        self._deadline = deadline

    def run(self, rate: Callable[[float], float], *, until: float, seed: int = 1) -> None:
        rng = random.Random(seed + 1000)
        queue: Queue = deque()
        busy: Busy = []
        number = itertools.count()
        for when in arrivals(rate, until, seed):
            self._finish(busy, queue, when, number)
            self._world.now = when
            tally = self._world.at(when)
            tally.offered += 1
            came = self._limiter.acquire()
            in_flight = self._limiter.in_flight
            self._world.most_in_flight = max(self._world.most_in_flight, in_flight)
            if came is None:
                tally.refused += 1
                continue
            kind, seconds = self._service(rng, when)
            queue.append((came, when, kind, seconds))
            self._start(busy, queue, when, number)

    def _start(self, busy: Busy, queue: Queue, now: float, number: Iterator[int]) -> None:
        while queue and len(busy) < self._size:
            came, when, kind, seconds = queue.popleft()
            heapq.heappush(busy, (now + seconds, next(number), came, when, kind))

    def _finish(self, busy: Busy, queue: Queue, until: float, number: Iterator[int]) -> None:
        while busy and busy[0][0] <= until:
            end, _, came, when, kind = heapq.heappop(busy)
            self._world.now = end
            self._limiter.release(came, kind)
            tally = self._world.at(when)
            tally.answered += 1
            tally.in_time += end - when <= self._deadline
            self._start(busy, queue, end, number)


class Loop:
    """An event loop whose handlers never wait: each turn serves what came during the last.

    ``others`` tells for how long other programs take the processor while a call is served.
    """

    def __init__(
        self,
        limiter: Limiter,
        world: World,
        service: Service,
        *,
        refusal: float = 0.0001,
        deadline: float = 1.0,
        others: Callable[[random.Random, float], float] = lambda _rng, _seconds: 0.0,
    ) -> None:
        self._limiter = limiter
        self._world = world
        self._service = service
        self._refusal = refusal
        self._deadline = deadline
        self._others = others

    def run(self, rate: Callable[[float], float], *, until: float, seed: int = 1) -> None:
        self.serve(arrivals(rate, until, seed), seed=seed)

    def serve(self, coming: Iterator[float], *, seed: int = 1) -> None:
        """Serve calls that come at these moments."""
        rng = random.Random(seed + 1000)
        ahead = next(coming, None)
        world = self._world
        while ahead is not None:
            world.now = max(world.now, ahead)
            read_at, turn = world.now, []
            while ahead is not None and ahead <= read_at:
                turn.append(ahead)
                ahead = next(coming, None)
            for when in turn:
                self._serve(rng, when, read_at)

    def _serve(self, rng: random.Random, when: float, read_at: float) -> None:
        world = self._world
        tally = world.at(when)
        tally.offered += 1
        came = self._limiter.acquire(read_at)
        if came is None:
            tally.refused += 1
            world.now += self._refusal
            return
        kind, seconds = self._service(rng, when)
        world.now += seconds
        others = self._others(rng, seconds)
        world.now += others
        world.delayed += others
        self._limiter.release(came, kind)
        tally.answered += 1
        tally.in_time += world.now - when <= self._deadline
