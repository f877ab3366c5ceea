"""What a balancer is. It sees prepared lists; filters and weights are never computed per call."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from meshkit.model import Instance


class Outcome(enum.Enum):
    """How a call to an instance ended."""

    OK = "ok"
    FAILED = "failed"  # it answered with an error, or the connection broke
    TIMEOUT = "timeout"  # no answer in the time that the attempt had
    REFUSED = "refused"  # no connection could be made
    WRONG = "wrong"  # somebody else answered
    SHED = "shed"  # it is overloaded, and has not handled the call
    DRAINING = "draining"  # it answered, and is leaving
    CANCELLED = "cancelled"  # the caller gave up; says nothing of the instance


# Called once for each pick, with the seconds since the pick.
Done = Callable[[Outcome, float], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that may be chosen.

    Attributes:
        instance: the instance.
        weight: its share of the calls relative to the others, more than 0: its own weight, and
            what zone and age make of it.
    """

    instance: Instance
    weight: float = 1.0


class Balancer(Protocol):
    """Chooses among the instances of one service for one transport. Not thread-safe.

    What it knows of an instance it keeps by the instance's id, so that a new list does not
    wipe it out.
    """

    def update(self, candidates: Sequence[Candidate]) -> None:
        """Choose from these from now on; keep what is known of those that stay."""

    def pick(self, exclude: Collection[str], key: str | None) -> tuple[Instance, Done] | None:
        """Return an instance whose id is not in ``exclude`` and what to call at the end, or None.

        Args:
            exclude: ids of instances that were tried for this call.
            key: what the call is about (a user, a cart), for balancers that keep calls with one
                key together; None when the caller gave none.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """What a balancer knows of an instance.

    Attributes:
        outstanding: calls that have not ended; None when it does not count them.
        latency: seconds that it expects an answer to take; None when it can't tell.
    """

    outstanding: int | None = None
    latency: float | None = None


@runtime_checkable
class Describing(Protocol):
    """A balancer that says what it goes by; those that remember nothing need not."""

    def describe(self) -> Mapping[str, Known]:
        """Return what is known of each instance that it chooses from, by id."""


def forget(outcome: Outcome, seconds: float) -> None:
    """Learn nothing: a :data:`Done` of balancers that need no memory of outcomes."""
