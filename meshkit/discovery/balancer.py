"""Choosing an instance. A balancer sees prepared lists; filters never run per call."""

from __future__ import annotations

import enum
import random
from collections.abc import Collection, Sequence
from typing import Protocol

from meshkit.model import Instance


class Outcome(enum.Enum):
    """How a call to an instance ended."""

    OK = "ok"
    FAILED = "failed"  # it answered with an error, or the connection broke
    REFUSED = "refused"  # no connection could be made
    WRONG = "wrong"  # somebody else answered
    DRAINING = "draining"  # it answered, and is leaving
    CANCELLED = "cancelled"  # the caller gave up; says nothing of the instance


class Balancer(Protocol):
    """Chooses among the instances of one service for one transport. Not thread-safe."""

    def update(self, instances: Sequence[Instance]) -> None:
        """Choose from these from now on; keep what is known of those that stay."""

    def pick(self, exclude: Collection[str]) -> Instance | None:
        """Return the next instance whose id is not in ``exclude``, or None."""

    def done(self, instance: Instance, outcome: Outcome) -> None:
        """Learn how the call to a picked instance ended; once per pick."""


class RoundRobin:
    """Each in turn, starting anywhere, so that many callers do not march in step."""

    def __init__(self) -> None:
        self._instances: tuple[Instance, ...] = ()
        self._next = 0

    def update(self, instances: Sequence[Instance]) -> None:
        """See :class:`Balancer`. The turn goes on with the one who was next, if it stays."""
        following = [*self._instances[self._next :], *self._instances[: self._next]]
        self._instances = tuple(instances)
        place = {instance.id: index for index, instance in enumerate(self._instances)}
        for instance in following:
            if instance.id in place:
                self._next = place[instance.id]
                return
        self._next = random.randrange(len(place)) if place else 0  # noqa: S311 - no secret

    def pick(self, exclude: Collection[str]) -> Instance | None:
        """See :class:`Balancer`."""
        for _ in range(len(self._instances)):
            instance = self._instances[self._next]
            self._next = (self._next + 1) % len(self._instances)
            if instance.id not in exclude:
                return instance
        return None

    def done(self, instance: Instance, outcome: Outcome) -> None:
        """See :class:`Balancer`. Taking turns needs no memory of outcomes."""
