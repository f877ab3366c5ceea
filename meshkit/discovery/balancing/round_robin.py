"""Each in turn."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, forget
from meshkit.discovery.balancing.memory import Memory
from meshkit.model import Instance

FULL = 1.0 - 1e-9  # ten tenths are a little less than 1


class Turn:
    """An instance's place in the round.

    Attributes:
        chosen: what a pick returns, made once.
        share: of the rounds that it takes part in: its weight through the greatest.
        credit: 1 is a call.
    """

    __slots__ = ("chosen", "credit", "share")

    def __init__(self) -> None:
        self.chosen: tuple[Instance, Done]
        self.share = 1.0
        self.credit = 0.0


class RoundRobin:
    """Each in turn, starting anywhere, so that many callers do not march in step.

    Who has half of the greatest weight takes part in every second round. ``weighted`` spreads
    unequal weights more evenly.
    """

    def __init__(self) -> None:
        self._memory: Memory[Turn] = Memory(lambda _: Turn())
        self._turns: list[Turn] = []
        self._next = 0

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`. The turn goes on with the one who was next, if it stays."""
        following = [*self._turns[self._next :], *self._turns[: self._next]]
        self._turns = self._memory.update([each.instance.id for each in candidates])
        greatest = max((each.weight for each in candidates), default=1.0)
        for turn, each in zip(self._turns, candidates, strict=True):
            turn.chosen = (each.instance, forget)
            turn.share = each.weight / greatest
        place = {turn: index for index, turn in enumerate(self._turns)}
        for turn in following:
            if turn in place:
                self._next = place[turn]
                return
        self._next = random.randrange(len(place)) if place else 0  # noqa: S311 - no secret

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:  # noqa: ARG002 - see Balancer
        """See :class:`Balancer`."""
        turns = self._turns
        for _ in turns:
            turn = turns[self._next]
            self._next += 1
            if self._next == len(turns):
                self._next = 0
            if exclude and turn.chosen[0].id in exclude:
                continue
            turn.credit += turn.share
            if turn.credit >= FULL:
                turn.credit -= 1.0
                return turn.chosen
        for turn in turns:  # those whose turn it was are excluded
            if turn.chosen[0].id not in exclude:
                return turn.chosen
        return None
