"""The one with the fewest calls under way."""

from __future__ import annotations

import math
import random as random_module
from collections.abc import Callable, Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, Known, Outcome
from meshkit.discovery.balancing.memory import Memory
from meshkit.discovery.balancing.sampling import Table, alias_table, draw, left_by_weight
from meshkit.model import Instance

STEEPEST = 100  # a weight counts as at least the greatest one through this
DRAWS = 8  # for a tie by weight


class Load:
    """The calls under way on one instance.

    Attributes:
        chosen: what a pick returns, made once.
        outstanding: calls that have not ended.
        each: levels by which one call raises it: the greatest weight through its own.
        chance: its own weight through the greatest.
        level: outstanding x each, rounded up; those of one level lie in one bucket.
        place: in its bucket; -1 while it is in none.
    """

    __slots__ = ("chance", "chosen", "each", "level", "outstanding", "place")

    def __init__(self) -> None:
        self.chosen: tuple[Instance, Done]
        self.outstanding = 0
        self.each = 1.0
        self.chance = 1.0
        self.level = 0
        self.place = -1


class LeastOutstanding:
    """Calls the instance with the fewest calls under way in relation to its weight.

    Ties are drawn by weight, so that callers do not all begin with the same one. Instances lie
    in buckets by their level, so that a pick looks at one bucket instead of at everybody.

    It knows no latency: an instance that fails at once looks idle. Prefer ``p2c`` where that can
    happen.

    Args:
        random: a number between 0 and 1, 1 excluded.
    """

    def __init__(self, *, random: Callable[[], float] = random_module.random) -> None:
        self._random = random
        self._memory: Memory[Load] = Memory(lambda _: Load())
        self._loads: list[Load] = []
        self._table: Table[Load] = []
        self._even = True  # all have the same weight
        self._buckets: dict[int, list[Load]] = {}
        self._lowest = 0

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`."""
        for load in self._loads:
            load.place = -1
        self._loads = self._memory.update([each.instance.id for each in candidates])
        self._buckets = {}
        self._lowest = 0
        greatest = max((each.weight for each in candidates), default=1.0)
        for load, each in zip(self._loads, candidates, strict=True):
            load.chosen = (each.instance, self._ending(load))
            load.chance = max(each.weight / greatest, 1 / STEEPEST)
            load.each = 1 / load.chance
            load.level = math.ceil(load.outstanding * load.each)
            bucket = self._buckets.setdefault(load.level, [])
            load.place = len(bucket)
            bucket.append(load)
        self._table = alias_table(self._loads, [load.chance for load in self._loads])
        self._even = all(load.chance == 1.0 for load in self._loads)

    def describe(self) -> dict[str, Known]:
        """See :class:`Describing`."""
        return {load.chosen[0].id: Known(load.outstanding) for load in self._loads}

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:  # noqa: ARG002 - see Balancer
        """See :class:`Balancer`."""
        if exclude or not self._loads:
            return self._pick_besides(exclude)
        while (bucket := self._buckets.get(self._lowest)) is None:
            self._lowest += 1
        if self._even:
            load = bucket[int(self._random() * len(bucket))]
        else:
            load = self._draw(self._lowest, bucket)
        load.outstanding += 1
        self._move(load)
        return load.chosen

    def _pick_besides(self, exclude: Collection[str]) -> tuple[Instance, Done] | None:
        left = [load for load in self._loads if load.chosen[0].id not in exclude]
        if not left:
            return None
        level = min(load.level for load in left)
        bucket = [load for load in left if load.level == level]
        load = left_by_weight(bucket, [each.chance for each in bucket], self._random)
        load.outstanding += 1
        self._move(load)
        return load.chosen

    def _draw(self, level: int, bucket: list[Load]) -> Load:
        """Return one of the bucket by weight, without a table of its own."""
        for _ in range(DRAWS):
            load = draw(self._table, self._random)
            if load.level == level:
                return load
        for _ in range(DRAWS):
            load = bucket[int(self._random() * len(bucket))]
            if self._random() < load.chance:
                break
        return load

    def _ending(self, load: Load) -> Done:
        def done(outcome: Outcome, seconds: float) -> None:  # noqa: ARG001 - only the count matters
            load.outstanding -= 1
            if load.place >= 0:
                self._move(load)

        return done

    def _move(self, load: Load) -> None:
        """Put it into the bucket of its new level."""
        buckets = self._buckets
        bucket = buckets[load.level]
        last = bucket.pop()
        if last is not load:  # it takes the place that becomes free
            bucket[load.place] = last
            last.place = load.place
        elif not bucket:
            del buckets[load.level]
        level = load.level = load.outstanding
        if load.chance < 1.0:
            level = load.level = math.ceil(load.outstanding * load.each)
        following = buckets.get(level)
        if following is None:
            load.place = 0
            buckets[level] = [load]
        else:
            load.place = len(following)
            following.append(load)
        if level < self._lowest:  # noqa: PLR1730 - min() costs more than all of this
            self._lowest = level
