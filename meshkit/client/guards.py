"""What all clients of one service share, HTTP and gRPC: budget, breakers, bulkheads, latency."""

from __future__ import annotations

from meshkit.client.breaker import Breaker, BreakerPolicy
from meshkit.client.budget import RetryBudget
from meshkit.client.bulkhead import Bulkhead, BulkheadPolicy
from meshkit.client.latency import Percentile

SLOW = 95.0  # the percentile that the try time goes by


class Guards:
    """One service's limits on what its clients do.

    Args:
        service: its name.
        budget: for further attempts.

    Attributes:
        budget: for further attempts.
        slow: what its slow answers take; every good answer is told to :meth:`answered`.
    """

    def __init__(self, service: str, budget: RetryBudget | None = None) -> None:
        self.service = service
        self.budget = RetryBudget() if budget is None else budget
        self.slow = Percentile(SLOW)
        self._percentiles = {SLOW: self.slow}
        self._others: tuple[Percentile, ...] = ()
        self._breakers: dict[BreakerPolicy, Breaker] = {}
        self._bulkheads: dict[BulkheadPolicy, Bulkhead] = {}

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """Those that clients have asked for so far."""
        return tuple(self._breakers.values())

    @property
    def bulkheads(self) -> tuple[Bulkhead, ...]:
        """Those that clients have asked for so far."""
        return tuple(self._bulkheads.values())

    def breaker(self, policy: BreakerPolicy) -> Breaker:
        """Return the breaker with this policy."""
        if policy not in self._breakers:
            self._breakers[policy] = Breaker(self.service, policy)
        return self._breakers[policy]

    def bulkhead(self, policy: BulkheadPolicy) -> Bulkhead:
        """Return the bulkhead with this policy."""
        if policy not in self._bulkheads:
            self._bulkheads[policy] = Bulkhead(self.service, policy)
        return self._bulkheads[policy]

    def percentile(self, percentile: float) -> Percentile:
        """Return the running estimate of this percentile of the latency."""
        if percentile not in self._percentiles:
            self._percentiles[percentile] = made = Percentile(percentile)
            self._others += (made,)
        return self._percentiles[percentile]

    def answered(self, seconds: float) -> None:
        """Learn how long a good answer took, from its own attempt on."""
        self.slow.add(seconds)
        for each in self._others:
            each.add(seconds)
