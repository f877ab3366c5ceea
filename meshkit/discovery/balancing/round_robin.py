"""Each in turn."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from meshkit.discovery.balancing.base import Candidate, Done, Outcome
from meshkit.model import Instance


class RoundRobin:
    """Each in turn, starting anywhere, so that many callers do not march in step."""

    def __init__(self) -> None:
        self._instances: tuple[Instance, ...] = ()
        self._next = 0

    def update(self, candidates: Sequence[Candidate]) -> None:
        """See :class:`Balancer`. The turn goes on with the one who was next, if it stays."""
        following = [*self._instances[self._next :], *self._instances[: self._next]]
        self._instances = tuple(each.instance for each in candidates)
        place = {instance.id: index for index, instance in enumerate(self._instances)}
        for instance in following:
            if instance.id in place:
                self._next = place[instance.id]
                return
        self._next = random.randrange(len(place)) if place else 0  # noqa: S311 - no secret

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:  # noqa: ARG002 - see Balancer
        """See :class:`Balancer`."""
        for _ in range(len(self._instances)):
            instance = self._instances[self._next]
            self._next = (self._next + 1) % len(self._instances)
            if instance.id not in exclude:
                return instance, forget
        return None


def forget(outcome: Outcome, seconds: float) -> None:
    """Learn nothing: taking turns needs no memory of outcomes."""
