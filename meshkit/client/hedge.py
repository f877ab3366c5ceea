"""Asking a second instance before the first one is known to be in trouble."""

from __future__ import annotations

import dataclasses

from meshkit.errors import ConfigError
from meshkit.numbers import check_numbers

USUAL = 95.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HedgePolicy:
    """When an idempotent call is also sent to another instance, to cut the slowest answers.

    The first good answer wins and the other attempt is given up. Each hedge takes from the
    service's retry budget, and counts as one of the attempts of the retry policy. Without
    arguments a call is hedged when it takes longer than 95 % of the others, so that one in twenty
    is sent twice. (J. Dean and L. A. Barroso, The Tail at Scale, 2013.)

    Attributes:
        delay: seconds without an answer after which the second attempt begins.
        percentile: of the service's latency, used as the delay instead; from 50 to 99.9.
    """

    delay: float | None = None
    percentile: float | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.delay is not None and self.percentile is not None:
            raise ConfigError("HedgePolicy: give either delay= or percentile=, not both")
        if self.delay is not None and not self.delay > 0:
            raise ConfigError(f"HedgePolicy: delay must be more than 0 s, not {self.delay:g}")
        if self.percentile is not None and not 50 <= self.percentile <= 99.9:
            raise ConfigError(
                f"HedgePolicy: percentile must be from 50 to 99.9, not {self.percentile:g}"
            )
        if self.delay is None and self.percentile is None:
            object.__setattr__(self, "percentile", USUAL)
