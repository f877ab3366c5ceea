"""Whether a call may begin at all: the bulkhead and the circuit breaker in front of it."""

from __future__ import annotations

from meshkit.client.breaker import Breaker
from meshkit.client.bulkhead import Bulkhead
from meshkit.client.guards import Guards
from meshkit.client.policy import CallPolicy


class Gate:
    """A breaker, a bulkhead, or both."""

    __slots__ = ("_breaker", "_bulkhead")

    def __init__(self, breaker: Breaker | None, bulkhead: Bulkhead | None) -> None:
        self._breaker = breaker
        self._bulkhead = bulkhead

    @classmethod
    def of(cls, guards: Guards, policy: CallPolicy) -> Gate | None:
        """Return the service's gate for this policy; None when everything may pass."""
        if policy.breaker is None and policy.bulkhead is None:
            return None
        return cls(
            None if policy.breaker is None else guards.breaker(policy.breaker),
            None if policy.bulkhead is None else guards.bulkhead(policy.bulkhead),
        )

    async def enter(self, limit: float) -> int:
        """Begin a call, waiting for a place at most ``limit`` seconds.

        Give what it returns to :meth:`judge`, and call :meth:`leave` at the end; each once.

        Raises:
            BreakerOpen, BulkheadFull: it may not begin.
        """
        if self._bulkhead is not None and not self._bulkhead.try_enter():
            await self._bulkhead.enter(limit)
        if self._breaker is None:
            return 0
        try:
            return self._breaker.enter()
        except BaseException:
            if self._bulkhead is not None:
                self._bulkhead.leave()
            raise

    def judge(self, ticket: int, *, failed: bool | None) -> None:
        """Tell how a call went, once; None when that says nothing of the service.

        Of a stream that is known when its answer begins, hours before it ends.
        """
        if self._breaker is not None:
            self._breaker.leave(ticket, failed=failed)

    def leave(self) -> None:
        """End a call that has begun."""
        if self._bulkhead is not None:
            self._bulkhead.leave()
