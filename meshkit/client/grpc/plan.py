"""What a method's calls may do when an attempt fails or does not answer; not made per call."""

from __future__ import annotations

import grpc

from meshkit.client.breaker import Breaker, BreakerPolicy
from meshkit.client.bulkhead import Bulkhead, BulkheadPolicy
from meshkit.client.guards import Guards
from meshkit.client.hedge import HedgePolicy
from meshkit.client.overdue import Overdue
from meshkit.client.retry import RetryPolicy


class Plan:
    """The policies of a channel, or of one of its methods, tied to what its service shares.

    Args:
        guards: the service's budget, breakers, bulkheads and latency.
        retry: when an attempt is followed by another one.
        hedge: when a second attempt begins early.
        breaker: when calls are not even tried.
        bulkhead: how many calls may be under way.

    Attributes:
        codes: statuses of a server after which an idempotent call may be repeated.
        guarded: calls need leave to begin.
        overdue: watches the attempts that began by this plan.
    """

    def __init__(
        self,
        guards: Guards,
        retry: RetryPolicy,
        hedge: HedgePolicy | None,
        breaker: BreakerPolicy | None,
        bulkhead: BulkheadPolicy | None,
    ) -> None:
        self.policies = (retry, hedge, breaker, bulkhead)
        self.guards = guards
        self.retry = retry
        self.codes = frozenset(grpc.StatusCode[name] for name in retry.codes)
        self.breaker: Breaker | None = None if breaker is None else guards.breaker(breaker)
        self.bulkhead: Bulkhead | None = None if bulkhead is None else guards.bulkhead(bulkhead)
        self.guarded = breaker is not None or bulkhead is not None
        self.overdue = Overdue()
        self._delay = None if hedge is None else hedge.delay
        percentile = None if hedge is None else hedge.percentile
        self._percentile = None if percentile is None else guards.percentile(percentile)

    def patience(self) -> float | None:
        """Return after how many seconds without an answer another instance is asked too."""
        patience = self.try_time()
        hedge = self._delay if self._percentile is None else self._percentile.seconds
        if hedge is None or self.retry.attempts == 1:
            return patience
        return hedge if patience is None else min(hedge, patience)

    def try_time(self) -> float | None:
        """Return after how many seconds without an answer an instance counts as hung."""
        return self.retry.patience(self.guards.slow.seconds)
