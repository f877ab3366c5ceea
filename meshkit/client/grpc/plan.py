"""What may be done for the calls of a channel, or of one of its methods; not made per call."""

from __future__ import annotations

import grpc

from meshkit.client import plan
from meshkit.client.breaker import Breaker, BreakerPolicy
from meshkit.client.bulkhead import Bulkhead, BulkheadPolicy
from meshkit.client.guards import Guards
from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import RetryPolicy


class Plan(plan.Plan):
    """The policies of calls, tied to what all calls to their service share.

    Args:
        guards: the service's budget, breakers, bulkheads and latency.
        retry: when an attempt is followed by another one.
        hedge: when a second attempt begins early.
        breaker: when calls are not even tried.
        bulkhead: how many calls may be under way.

    Attributes:
        policies: the last four.
        codes: statuses of a server after which an idempotent call may be repeated.
        guarded: calls need leave to begin.
    """

    __slots__ = ("breaker", "bulkhead", "codes", "guarded", "guards", "policies")

    def __init__(
        self,
        guards: Guards,
        retry: RetryPolicy,
        hedge: HedgePolicy | None,
        breaker: BreakerPolicy | None,
        bulkhead: BulkheadPolicy | None,
    ) -> None:
        super().__init__(guards, retry, hedge)
        self.policies = (retry, hedge, breaker, bulkhead)
        self.guards = guards
        self.codes = frozenset(grpc.StatusCode[name] for name in retry.codes)
        self.breaker: Breaker | None = None if breaker is None else guards.breaker(breaker)
        self.bulkhead: Bulkhead | None = None if bulkhead is None else guards.bulkhead(bulkhead)
        self.guarded = breaker is not None or bulkhead is not None
