"""What may be done for a call beyond one attempt: the policies, made ready for use."""

from __future__ import annotations

from meshkit.client.guards import Guards
from meshkit.client.hedge import HedgePolicy
from meshkit.client.overdue import Overdue
from meshkit.client.retry import USUALLY, RetryPolicy
from meshkit.errors import ConfigError

KEPT = 16  # plans of single calls


class Plan:
    """A retry and a hedge policy of one service.

    Attributes:
        retry: when an attempt is followed by another one.
        overdue: attempts that are followed by another one if they take too long.
    """

    __slots__ = ("_delay", "_percentile", "_slow", "_try_timeout", "overdue", "retry", "statuses")

    def __init__(self, guards: Guards, retry: RetryPolicy, hedge: HedgePolicy | None) -> None:
        if not isinstance(retry, RetryPolicy):
            raise ConfigError(f"retry= must be a RetryPolicy, not {retry!r}")
        if hedge is not None and not isinstance(hedge, HedgePolicy):
            raise ConfigError(f"hedge= must be a HedgePolicy, not {hedge!r}")
        self.retry = retry
        self.statuses = retry.statuses
        self.overdue = Overdue()
        self._slow = guards.slow
        self._try_timeout = retry.patience(0.0)
        self._delay = None if hedge is None else hedge.delay
        self._percentile = (
            guards.percentile(hedge.percentile) if hedge and hedge.percentile else None
        )

    def try_time(self) -> float | None:
        """Return the seconds without an answer that speak against an instance; None: never."""
        return self.retry.patience(self._slow.seconds)

    def patience(self) -> float | None:
        """Return after how many seconds another instance is asked as well; None for never."""
        least = self._try_timeout
        if least is not None:  # as RetryPolicy.patience() has it, without the call
            slow = USUALLY * self._slow.seconds
            least = max(least, slow)
        delay = self._delay if self._percentile is None else self._percentile.seconds
        if delay is None or (least is not None and least < delay):
            return least
        return delay


class Plans:
    """The plans of one client: its own, and those of calls with policies of their own.

    Args:
        guards: the service's.
        retry: the client's policy.
        hedge: likewise.

    Attributes:
        usual: the plan of calls without a policy of their own.
    """

    def __init__(self, guards: Guards, retry: RetryPolicy, hedge: HedgePolicy | None) -> None:
        self._guards = guards
        self._hedge = hedge
        self._others: dict[tuple[RetryPolicy, HedgePolicy | None], Plan] = {}
        self.usual = Plan(guards, retry, hedge)

    def of(self, retry: RetryPolicy | None, hedge: HedgePolicy | None) -> Plan:
        """Return the plan of a call; the client's policy stands in for one that is not given."""
        if retry is None and hedge is None:
            return self.usual
        key = (retry or self.usual.retry, hedge or self._hedge)
        plan = self._others.get(key)
        if plan is None:
            if len(self._others) >= KEPT:  # somebody makes up a new one for each call
                self._others.clear()
            plan = self._others[key] = Plan(self._guards, *key)
        return plan
