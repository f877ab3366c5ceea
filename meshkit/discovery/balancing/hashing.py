"""Calls with one key go to one instance, as long as it is there and not overloaded."""

from __future__ import annotations

import bisect
import hashlib
import math
import random as random_module
import zlib
from collections.abc import Callable, Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, Known, Outcome
from meshkit.discovery.balancing.memory import Memory
from meshkit.discovery.balancing.sampling import Table, alias_table, draw
from meshkit.model import Instance

POINTS = 64  # on the ring for an instance of mean weight; the shares vary by 1 / sqrt(POINTS)
POINTS_MOST = 1024
BOUND = 1.25  # times the mean is the most calls at once that one gets
BOUND_LEAST = 4  # calls at once that are never too many, so that a quiet service keeps its keys


class Load:
    """What is known of one instance.

    Attributes:
        chosen: what a pick returns, made once.
        outstanding: calls that have not ended, of all keys.
        share: its weight through the weight of all.
        points: its places on the ring, as many as were ever needed.
    """

    __slots__ = ("chosen", "outstanding", "points", "share")

    def __init__(self) -> None:
        self.chosen: tuple[Instance, Done]
        self.outstanding = 0
        self.share = 1.0
        self.points: list[int] = []


class ConsistentHash:
    """Keys lie on a ring and belong to the next instance on it, as its weight allows.

    When an instance comes or goes, only its own share of the keys moves; all callers agree, as
    nothing in it is random. An instance with more than 1.25 times its share of the calls under
    way passes further ones on to the next on the ring (consistent hashing with bounded loads,
    https://arxiv.org/abs/1608.01350), so neither a hot key nor a hung instance stops everything.
    A call without a key goes to anybody, by weight.

    Args:
        random: a number between 0 and 1, 1 excluded; for calls without a key.
    """

    whole_list = True  # callers that choose from different parts of a list could not agree

    def __init__(self, *, random: Callable[[], float] = random_module.random) -> None:
        self._random = random
        self._memory: Memory[Load] = Memory(lambda _: Load())
        self._loads: list[Load] = []
        self._table: Table[Load] = []
        self._points: list[int] = []
        self._owners: list[Load] = []
        self._outstanding = 0

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`."""
        self._loads = self._memory.update([each.instance.id for each in candidates])
        weights = [each.weight for each in candidates]
        total = sum(weights)
        ring: list[tuple[int, int]] = []
        for number, (load, each) in enumerate(zip(self._loads, candidates, strict=True)):
            load.chosen = (each.instance, self._ending(load))
            load.share = each.weight / total
            count = math.ceil(min(POINTS * load.share * len(weights), POINTS_MOST))
            for index in range(len(load.points), count):
                load.points.append(point(f"{each.instance.id}/{index}"))
            ring += ((each_point, number) for each_point in load.points[:count])
        ring.sort()
        self._points = [each_point for each_point, _ in ring]
        self._owners = [self._loads[number] for _, number in ring]
        self._table = alias_table(self._loads, weights)

    def describe(self) -> dict[str, Known]:
        """See :class:`Describing`."""
        return {load.chosen[0].id: Known(load.outstanding) for load in self._loads}

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:
        """See :class:`Balancer`."""
        if not self._loads:
            return None
        if key is None:
            load = draw(self._table, self._random)
            if exclude and load.chosen[0].id in exclude:
                return self._walk(str(self._random()), exclude)
        else:
            owners, start = self._owners, bisect.bisect(self._points, position(key))
            load = owners[start - len(owners)]  # behind the last comes the first
            busy = load.outstanding >= BOUND_LEAST and self._is_full(load)
            if busy or (exclude and load.chosen[0].id in exclude):
                return self._walk(key, exclude)
        return self._take(load)

    def _is_full(self, load: Load) -> bool:
        allowed = max(BOUND * load.share * (self._outstanding + 1), BOUND_LEAST)
        return load.outstanding >= math.ceil(allowed)

    def _walk(self, key: str, exclude: Collection[str]) -> tuple[Instance, Done] | None:
        """Return the next on the ring with room for a call, or else the next at all."""
        start = bisect.bisect(self._points, position(key))
        order = dict.fromkeys((*self._owners[start:], *self._owners[:start]))
        left = [load for load in order if load.chosen[0].id not in exclude]
        if not left:
            return None
        return self._take(next((load for load in left if not self._is_full(load)), left[0]))

    def _take(self, load: Load) -> tuple[Instance, Done]:
        load.outstanding += 1
        self._outstanding += 1
        return load.chosen

    def _ending(self, load: Load) -> Done:
        def done(outcome: Outcome, seconds: float) -> None:  # noqa: ARG001 - only the count matters
            load.outstanding -= 1
            self._outstanding -= 1

        return done


def point(text: str) -> int:
    """Return the place of one point of an instance on the ring, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())


def position(key: str) -> int:
    """Return the place of a key on the ring; the ring is random already, so this may be cheap."""
    return zlib.crc32(key.encode(errors="surrogatepass"))
