"""How many further attempts a service can be burdened with.

A service that fails gets more calls by being retried, fails more, and gets more still. The budget
bounds that: it is one for all clients of a service in this process, and everything that calls an
instance once more for the same call takes from it (retries, hedges, second attempts of slow
calls).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from meshkit.client.window import SlidingSum
from meshkit.errors import ConfigError

UNIT = 1000  # one further attempt, so that a call can put in a part of one


class RetryBudget:
    """A bucket of tokens, one for each further attempt; the rule is Finagle's.

    Every call puts in ``share`` of a token, which is gone again after ``window`` seconds. On top
    there are ``floor`` tokens a second, so that a service that is called rarely can be retried at
    all; a whole window of them is there at the beginning and may be used at once. So over any
    stretch of time, further attempts are at most ``share`` x calls + ``floor`` x (seconds +
    window).

    Args:
        share: of the calls, from 0 to 1.
        floor: further attempts a second, whatever the calls.
        window: seconds that tokens are good for.
        clock: seconds.

    Attributes:
        refused: how many further attempts it did not allow.
    """

    __slots__ = ("_deposit", "_reserve", "_tokens", "refused")

    def __init__(
        self,
        *,
        share: float = 0.2,
        floor: float = 10.0,
        window: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (0 <= share <= 1 and floor >= 0 and window > 0):
            raise ConfigError(
                f"RetryBudget: share must be 0 to 1, floor at least 0 and window more than 0, "
                f"not {share:g}, {floor:g} and {window:g}"
            )
        self._deposit = round(share * UNIT)
        self._reserve = round(floor * window * UNIT)
        self._tokens = SlidingSum(window, clock)
        self.refused = 0

    def deposit(self) -> None:
        """Note a call; once for each, whatever its attempts."""
        self._tokens.add(self._deposit)

    def withdraw(self) -> bool:
        """Take a token for one further attempt. False when there is none: do not make it."""
        if self._reserve + self._tokens.total() < UNIT:
            self.refused += 1
            return False
        self._tokens.add(-UNIT)
        return True

    def give_back(self) -> None:
        """Put back a token that was just taken, as nothing came of the attempt."""
        self._tokens.add(UNIT)

    @property
    def left(self) -> float:
        """How many further attempts could be made now."""
        return max(self._reserve + self._tokens.total(), 0) / UNIT

    def __repr__(self) -> str:
        return f"<RetryBudget {self.left:.1f} left>"
