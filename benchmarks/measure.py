"""How things are compared: in turn, pair by pair, and judged by the median ratio.

A noisy machine disturbs neighbours alike, so a ratio within one round is steadier than any
absolute figure. Absolutes are shown beside their counterpart, never alone.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class BenchmarkError(Exception):
    """A measurement could not be made; one line says why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One row of the table.

    Attributes:
        name: what was measured.
        limit: the highest value that passes, in ``unit``; None when it is only reported.
        values: one for each round, in ``unit``.
        note: the absolute figures of both sides.
        unit: "x" for a ratio, else what is counted.
        worst: judge by the highest value instead: what must not happen once.
        page: a table of its own for the document, in Markdown.
    """

    name: str
    limit: float | None
    values: Sequence[float]
    note: str
    unit: str = "x"
    worst: bool = False
    page: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def passed(self) -> bool:
        value = max(self.values) if self.worst else self.median
        return self.limit is None or value <= self.limit


class Pace:
    """How long to do what is not counted in rounds: less with --quick."""

    quick = False

    def of(self, seconds: float, *, quick: float) -> float:
        return quick if self.quick else seconds


pace = Pace()


def compare(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    limit: float | None,
    unit: str,
) -> Result:
    """Return the ratio of each pair; ``unit`` is what both sides were measured in."""
    ratios = [mine / base for mine, base in zip(ours, theirs, strict=True)]
    mine, base = (_figure(statistics.median(each)) for each in (ours, theirs))
    note = f"{mine} against {base} {unit}"
    return Result(name=name, limit=limit, values=ratios, note=note)


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


async def alternate(
    rounds: int, *cases: Callable[[], Awaitable[T]], warm_up: int = 1
) -> list[list[T]]:
    """Run the cases in turn (A B A B ...); return each case's values, in the order of rounds.

    The first ``warm_up`` rounds fill caches (bytecode, pages) and are not counted.
    """
    values: list[list[T]] = [[] for _ in cases]
    for number in range(-warm_up, rounds):
        for case, found in zip(cases, values, strict=True):
            value = await case()
            if number >= 0:
                found.append(value)
    return values


def now() -> float:
    """Return seconds since boot, the clock that process start times are in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
