"""How slow a service usually is when it is slow."""

from __future__ import annotations

STEP = 0.1
START = 0.05
SHORTEST = 1e-4


class Percentile:
    """A running estimate of a percentile, in one number instead of a table of samples.

    Each sample moves the estimate by a small factor, up when it was larger and down when it was
    smaller; the two factors balance where the wanted share lies below. It follows a change within
    some ten samples upwards, downwards more slowly, and is within about 10 % of the truth.
    (Stochastic approximation, Robbins and Monro 1951, on the logarithm.)

    Args:
        percentile: more than 0, less than 100.

    Attributes:
        seconds: the estimate.
    """

    __slots__ = ("_down", "_up", "seconds")

    def __init__(self, percentile: float) -> None:
        share = percentile / 100
        self._up = 1 + STEP * share
        self._down = 1 - STEP * (1 - share)
        self.seconds = START

    def add(self, seconds: float) -> None:
        """Learn how long one call took."""
        known = self.seconds
        if seconds > known:
            known *= self._up
            self.seconds = min(seconds, known)
        elif known > SHORTEST:
            self.seconds = known * self._down
