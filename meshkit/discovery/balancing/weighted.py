"""Each in turn, as often as its weight says, spread evenly."""

from __future__ import annotations

import heapq
import random as random_module
from collections.abc import Callable, Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, forget
from meshkit.discovery.balancing.memory import Memory
from meshkit.model import Instance


class Turn:
    """When an instance is called next, in calls for each unit of weight."""

    __slots__ = ("due",)

    def __init__(self, due: float) -> None:
        self.due = due


class Weighted:
    """Calls whoever is due first; who has weight w is due again after 1/w.

    In any run of calls each has its exact share, give or take one call. It is the earliest
    deadline first scheduler of Envoy and nginx's smooth weighted round robin, with the same
    result at a cost of O(log n) in C.

    Args:
        random: a number between 0 and 1, 1 excluded; for where newcomers begin.
    """

    def __init__(self, *, random: Callable[[], float] = random_module.random) -> None:
        self._random = random
        self._memory: Memory[Turn] = Memory(lambda _: Turn(-1.0))
        self._now = 0.0
        # (due, tie-breaker, interval, turn, what a pick returns), the first due first.
        self._heap: list[tuple[float, int, float, Turn, tuple[Instance, Done]]] = []

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`. Those who stay keep their turn; a newcomer gets any."""
        for due, _, _, turn, _ in self._heap:
            turn.due = due
        turns = self._memory.update([each.instance.id for each in candidates])
        self._heap = []
        for order, (turn, each) in enumerate(zip(turns, candidates, strict=True)):
            interval = 1.0 / each.weight
            # Whoever was away has no claim to the turns it missed, nor waits for longer than one.
            if not self._now <= turn.due <= self._now + interval:
                turn.due = self._now + self._random() * interval
            self._heap.append((turn.due, order, interval, turn, (each.instance, forget)))
        heapq.heapify(self._heap)

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:  # noqa: ARG002 - see Balancer
        """See :class:`Balancer`."""
        heap = self._heap
        if not heap:
            return None
        due, order, interval, turn, chosen = heap[0]
        if exclude and chosen[0].id in exclude:
            return self._pick_besides(exclude)
        self._now = due
        heapq.heapreplace(heap, (due + interval, order, interval, turn, chosen))
        return chosen

    def _pick_besides(self, exclude: Collection[str]) -> tuple[Instance, Done] | None:
        """Return who is due first of those left. It is one call ahead then."""
        left = [each for each in self._heap if each[4][0].id not in exclude]
        if not left:
            return None
        first = min(left)
        due, order, interval, turn, chosen = first
        self._heap[self._heap.index(first)] = (due + interval, order, interval, turn, chosen)
        heapq.heapify(self._heap)
        return chosen
