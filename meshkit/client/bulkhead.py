"""A bulkhead: a service that hangs must not take all of its caller's memory and connections."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import math

from meshkit.errors import BulkheadFull, ConfigError
from meshkit.numbers import check_numbers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BulkheadPolicy:
    """How many calls to a service may be under way. Clients of it with equal ones share it.

    Attributes:
        concurrent: calls at a time; retries and hedges are part of their call.
        queue: calls that may wait for one of them to end.
        wait: seconds that they wait at most, and never longer than their own time.
    """

    concurrent: int
    queue: int = 0
    wait: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.concurrent < 1:
            raise ConfigError(
                f"BulkheadPolicy: concurrent must be at least 1, not {self.concurrent}"
            )
        if self.queue < 0:
            raise ConfigError(f"BulkheadPolicy: queue must be at least 0, not {self.queue}")
        if not self.wait > 0:
            raise ConfigError(f"BulkheadPolicy: wait must be more than 0 s, not {self.wait:g}")


class Bulkhead:
    """Gives out places, in the order of asking.

    Args:
        service: what is called, for the error.
        policy: how many places there are.

    Attributes:
        refused: how many calls found no place.
    """

    def __init__(self, service: str, policy: BulkheadPolicy) -> None:
        self._service = service
        self._policy = policy
        self._free = policy.concurrent
        self._queue: collections.deque[asyncio.Future[None]] = collections.deque()
        self.refused = 0

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """How many places are taken."""
        return self._policy.concurrent - self._free

    def try_enter(self) -> bool:
        """Take a place if one is free now. Give it back with :meth:`leave`, once."""
        if self._free and not self._queue:
            self._free -= 1
            return True
        return False

    async def enter(self, limit: float = math.inf) -> None:
        """Take a place, waiting for it if the policy allows it, at most ``limit`` seconds.

        Raises:
            BulkheadFull: there is none.
        """
        if self.try_enter():
            return
        if len(self._queue) >= self._policy.queue:
            self.refused += 1
            waiting = f" and {len(self._queue)} wait already" if self._queue else ""
            raise BulkheadFull(self._line() + waiting)
        place = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        wait = min(self._policy.wait, limit)
        try:
            async with asyncio.timeout(wait):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.leave()  # given in the same moment
            elif place in self._queue:
                self._queue.remove(place)
            if not isinstance(error, TimeoutError):
                raise
            self.refused += 1
            raise BulkheadFull(f"{self._line()} and none ended within {wait:g} s") from None

    def leave(self) -> None:
        """Give a place back; whoever waits longest gets it."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    def _line(self) -> str:
        busy = self._policy.concurrent
        return f"{self._service}: not called, as {busy} calls are under way (bulkhead)"

    def __repr__(self) -> str:
        return f"<Bulkhead {self._service} {self.busy} of {self._policy.concurrent}>"
