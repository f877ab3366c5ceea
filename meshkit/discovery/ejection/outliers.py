"""Comparing instances by what their calls of an interval came to. Pure: no clock, no state."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence

from meshkit.discovery.ejection.policy import EjectionPolicy


class Tally:
    """Counters of one instance; all but ``row`` are of one interval.

    Attributes:
        answered: calls that ended well.
        seconds: how long these took together.
        failed: calls that failed, got no answer in time or were shed.
        row: calls that failed since the last good answer.
    """

    __slots__ = ("answered", "failed", "row", "seconds")

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.row = 0
        self.seconds = 0.0

    @property
    def calls(self) -> int:
        """Calls that say something."""
        return self.answered + self.failed

    def begin(self) -> None:
        """Begin the next interval."""
        self.answered = self.failed = 0
        self.seconds = 0.0


def unreliable(tallies: Mapping[str, Tally], policy: EjectionPolicy) -> list[str]:
    """Return the ids of those whose success rate is far below what is usual."""
    rates = {
        key: tally.answered / tally.calls
        for key, tally in tallies.items()
        if tally.calls >= policy.volume
    }
    if not policy.deviations or len(rates) < policy.instances:
        return []
    mean, deviation = statistics.fmean(rates.values()), statistics.pstdev(rates.values())
    limit = mean - max(policy.deviations * deviation, policy.difference)
    return [key for key, rate in rates.items() if rate < limit]


def laggards(tallies: Mapping[str, Tally], policy: EjectionPolicy) -> dict[str, float]:
    """Return those that are much slower than the others, and what would not be too slow.

    Only good answers count: one that fails fast is not quick, and one that fails late is found
    by its failures.
    """
    means = {
        key: tally.seconds / tally.answered
        for key, tally in tallies.items()
        if tally.answered >= policy.volume
    }
    if not policy.slowness or len(means) < 2:
        return {}
    ranked = sorted(means, key=means.__getitem__)
    values = [means[key] for key in ranked]
    found = {}
    for place, key in enumerate(ranked):
        usual = _median_without(values, place)
        limit = max(policy.slowness * usual, usual + policy.delay)
        if means[key] > limit:
            found[key] = limit
    return found


def _median_without(values: Sequence[float], place: int) -> float:
    """Return the median of sorted values but one, without sorting again."""

    def value(rank: int) -> float:
        return values[rank if rank < place else rank + 1]

    count = len(values) - 1
    return (value((count - 1) // 2) + value(count // 2)) / 2


def avoidable(
    absent: Collection[str], suspects: Sequence[str], up: Collection[str], policy: EjectionPolicy
) -> tuple[frozenset[str], bool]:
    """Return whom to avoid, and whether that is panic.

    Args:
        absent: those that surely can't be called: avoided whatever their number.
        suspects: the others that deserve it, in the order in which there may be room for them.
        up: all that are to be called.
        policy: its ``share`` and ``panic`` are of those that are up and not absent.
    """
    alive = sum(each not in absent for each in up)
    counted = [each for each in suspects if each in up]
    tiny = 1e-9  # 0.29 x 100 is 28.999...
    if len(counted) > policy.panic * alive + tiny:
        return frozenset(absent), True
    return frozenset((*absent, *counted[: int(policy.share * alive + tiny)])), False
