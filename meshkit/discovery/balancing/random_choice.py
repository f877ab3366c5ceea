"""Anybody, by weight."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, forget
from meshkit.discovery.balancing.sampling import Table, alias_table, draw, left_by_weight
from meshkit.model import Instance

DRAWS = 8  # until one is found that is not excluded


class Random:
    """Draws by weight and remembers nothing.

    Args:
        random: a number between 0 and 1, 1 excluded.
    """

    def __init__(self, *, random: Callable[[], float] = random_module.random) -> None:
        self._random = random
        self._table: Table[Candidate] = []
        self._candidates: Sequence[Candidate] = ()

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`."""
        self._candidates = tuple(candidates)
        self._table = alias_table(self._candidates, [each.weight for each in candidates])

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:  # noqa: ARG002 - see Balancer
        """See :class:`Balancer`."""
        if not self._table:
            return None
        for _ in range(DRAWS):
            instance = draw(self._table, self._random).instance
            if instance.id not in exclude:
                return instance, forget
        rest = [each for each in self._candidates if each.instance.id not in exclude]
        if not rest:
            return None
        chosen = left_by_weight(rest, [each.weight for each in rest], self._random)
        return chosen.instance, forget
