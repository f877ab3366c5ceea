"""Pauses between attempts that have no last one."""

from __future__ import annotations

import random


class Backoff:
    """Growing pauses with jitter: between half and the whole of a bound that doubles up to a cap.

    Args:
        first: seconds, the first bound.
        cap: seconds, the largest bound.
    """

    def __init__(self, *, first: float = 0.2, cap: float) -> None:
        self._first = first
        self._cap = cap
        self._failures = 0

    def next(self) -> float:
        """Return the seconds to wait after one more failure."""
        bound = min(self._cap, self._first * 2 ** min(self._failures, 16))
        self._failures += 1
        return random.uniform(bound / 2, bound)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin anew after a success."""
        self._failures = 0
