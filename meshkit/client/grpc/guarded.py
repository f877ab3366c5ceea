"""Calls that need leave to begin: a circuit breaker's, or a place in a bulkhead."""

from __future__ import annotations

import math

from meshkit.client.grpc.attempts import Attempts
from meshkit.client.grpc.errors import RpcBreakerOpen, RpcBulkheadFull, RpcFailure
from meshkit.discovery.balancing import Outcome
from meshkit.errors import BreakerOpen, BulkheadFull

# How the last attempt of a call without an error of ours ended; anything else is a failure.
SUCCESS = {
    Outcome.OK: False,
    Outcome.DRAINING: False,
    Outcome.SHED: True,
    Outcome.CANCELLED: None,  # says nothing
}


class Guarded(Attempts):
    """A call that takes a place in the bulkhead, and tells the breaker how it ended."""

    _placed = False
    _ticket: int | None = None

    def _enter(self) -> None:
        bulkhead = self.plan.bulkhead
        if bulkhead is None or bulkhead.try_enter():
            self._admitted()
        else:
            self._search = self._loop.create_task(self._queue())

    async def _queue(self) -> None:
        assert self.plan.bulkhead is not None
        left = self._left()
        try:
            await self.plan.bulkhead.enter(math.inf if left is None else left)
        except BulkheadFull as error:
            self._end(RpcBulkheadFull(str(error)))
        else:
            self._go_on(self._admitted)

    def _admitted(self) -> None:
        self._placed = self.plan.bulkhead is not None
        if self.plan.breaker is not None:
            try:
                self._ticket = self.plan.breaker.enter()
            except BreakerOpen as error:
                self._end(RpcBreakerOpen(str(error)))
                return
        self._advance()

    def _leave(self, error: Exception | None) -> None:
        if self._placed:
            assert self.plan.bulkhead is not None
            self.plan.bulkhead.leave()
        if self._ticket is not None:
            assert self.plan.breaker is not None
            self.plan.breaker.leave(self._ticket, failed=self._has_failed(error))

    def _has_failed(self, error: Exception | None) -> bool | None:
        """Whether the service failed; None when the end says nothing of it."""
        if error is None:
            return SUCCESS.get(self._outcome, True)
        return True if isinstance(error, RpcFailure) else None
