"""Choosing an instance and noting how its call ended, against one `random.choice` of a list.

Each balancer by name with 3, 100 and 1,000 instances of equal weight, a call at a time that ends
well; hash with a key. Timed is the CPU of this thread, whoever else wants it. `flat` is the time
with so many instances against the time with 3; weighted keeps a heap, whose cost grows with the
logarithm of the number. The limit is 1 microsecond where `random.choice` takes 0.23. `target` is
what a client calls: the list's state, ejections, the time taken and the balancer.
"""

from __future__ import annotations

import functools
import random
import time
import timeit
from collections.abc import Callable

from measure import Result, alternate, compare

from meshkit.discovery.balancing import BALANCERS, Balancer, Candidate, Outcome
from meshkit.discovery.followed import Followed
from meshkit.discovery.target import Target
from meshkit.model import Endpoint, Instance, Snapshot

ROUNDS = 21
CALLS = 5000
TARGET = "target"
NAMES = (*BALANCERS, TARGET)
SIZES = (3, 100, 1000)
LIMIT = 1.0 / 0.23
FLAT = 1.5
OK = Outcome.OK


class Fixed(Followed):
    """A list that does not change."""

    def __init__(self, instances: tuple[Instance, ...]) -> None:
        super().__init__("users")
        self._publish(Snapshot(service="users", instances=instances))

    async def aclose(self) -> None:
        """Nothing to stop."""


async def run(rounds: int) -> list[Result]:
    numbers = list(range(1000))
    choice, *found = await alternate(
        rounds,
        functools.partial(nanoseconds, lambda: random.choice(numbers)),
        *(functools.partial(nanoseconds, case(name, size)) for name in NAMES for size in SIZES),
    )
    results = []
    for index, name in enumerate(NAMES):
        few, *more = found[index * len(SIZES) : (index + 1) * len(SIZES)]
        limit = None if name == TARGET else LIMIT
        results.append(compare(f"pick_{name}", few, choice, limit=limit, unit="ns"))
        flat = None if name == "weighted" else FLAT
        for size, many in zip(SIZES[1:], more, strict=True):
            results.append(compare(f"pick_{name}_flat_{size}", many, few, limit=flat, unit="ns"))
    return results


def case(name: str, size: int) -> Callable[[], None]:
    return targeting(size) if name == TARGET else picking(name, size)


def instances(count: int) -> tuple[Instance, ...]:
    endpoints = {"http": Endpoint("127.0.0.1", 8000)}
    return tuple(
        Instance(id=f"users-{number:04}", service="users", endpoints=endpoints)
        for number in range(count)
    )


def picking(name: str, size: int) -> Callable[[], None]:
    balancer: Balancer = BALANCERS[name]()
    balancer.update([Candidate(each) for each in instances(size)])
    key = "user-1" if name == "hash" else None

    def call() -> None:
        picked = balancer.pick((), key)
        assert picked is not None
        picked[1](OK, 0.02)

    return call


def targeting(size: int) -> Callable[[], None]:
    target = Target(Fixed(instances(size)), subset=0)

    def call() -> None:
        pick = target.try_pick("http")
        assert pick is not None
        pick.done(OK)

    return call


async def nanoseconds(call: Callable[[], object]) -> float:
    return timeit.timeit(call, number=CALLS, timer=time.thread_time) / CALLS * 1e9
