"""A circuit breaker: failing at once while a service as a whole can't answer."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable

from meshkit.client.window import SlidingSum
from meshkit.errors import BreakerOpen, ConfigError
from meshkit.numbers import check_numbers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When calls to a service are not even tried. Clients of a service with equal ones share it.

    There is none unless you ask for it: single instances that fail are set aside anyway, retries
    are bounded by their budget, and servers shed what is too much. A breaker on top makes a
    service that fails in part fail wholly; it is for callers who have something better to do
    than to wait for an answer that is likely to be an error.

    Attributes:
        failures: it opens when more than this share of the calls failed, from 0 to 1. A call
            failed when no instance answered it, or when its answer was 5xx; retries are within.
        volume: calls in the window below which it does not open.
        window: seconds that are looked at.
        pause: seconds until it lets some calls through again (half-open).
        probes: how many of them at once; it closes when so many succeeded, and opens again when
            one failed.
    """

    failures: float = 0.5
    volume: int = 20
    window: float = 10.0
    pause: float = 5.0
    probes: int = 3

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0 <= self.failures < 1:
            raise ConfigError(
                f"BreakerPolicy: failures must be a share from 0 to less than 1, "
                f"not {self.failures:g}"
            )
        for name in ("volume", "window", "pause", "probes"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"BreakerPolicy: {name} must be more than 0, not {getattr(self, name):g}"
                )


class State(enum.Enum):
    """What a breaker lets through."""

    CLOSED = "closed"  # everything
    OPEN = "open"  # nothing
    HALF_OPEN = "half-open"  # a few


class Breaker:
    """Counts how calls ended, and says whether the next one may begin.

    Args:
        service: what is called, for the error.
        policy: when it opens.
        clock: seconds.

    Attributes:
        state: what it lets through.
        opened: how often it opened.
    """

    def __init__(
        self, service: str, policy: BreakerPolicy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._policy = policy
        self._clock = clock
        self._calls = SlidingSum(policy.window, clock)
        self._failures = SlidingSum(policy.window, clock)
        self._until = 0.0
        self._turn = 0  # of state: what began in another one says nothing of this one
        self._probing = 0
        self._succeeded = 0
        self.state = State.CLOSED
        self.opened = 0

    def enter(self) -> int:
        """Begin a call; give what it returns to :meth:`leave`, once.

        Raises:
            BreakerOpen: it may not begin.
        """
        if self.state is State.CLOSED:
            return self._turn
        if self.state is State.OPEN:
            left = self._until - self._clock()
            if left > 0:
                raise BreakerOpen(
                    f"{self._service}: not called, as too many calls failed "
                    f"(circuit breaker open, tried again in {left:.1f} s)"
                )
            self._change(State.HALF_OPEN)
        if self._probing >= self._policy.probes:
            raise BreakerOpen(
                f"{self._service}: not called, as too many calls failed "
                f"(circuit breaker half-open, {self._probing} calls are trying it)"
            )
        self._probing += 1
        return self._turn

    def leave(self, ticket: int, *, failed: bool | None) -> None:
        """End a call.

        Args:
            ticket: from :meth:`enter`.
            failed: None when the end says nothing of the service, as when the caller gave up.
        """
        if ticket != self._turn:
            return
        if self.state is State.HALF_OPEN:
            self._probed(failed=failed)
        elif failed is not None:
            self._calls.add(1)
            if failed:
                self._failures.add(1)
                self._judge()

    def _judge(self) -> None:
        calls = self._calls.total()
        if calls >= self._policy.volume and self._failures.total() > self._policy.failures * calls:
            self._open()

    def _probed(self, *, failed: bool | None) -> None:
        self._probing -= 1
        if failed:
            self._open()
        elif failed is not None:
            self._succeeded += 1
            if self._succeeded >= self._policy.probes:
                self._change(State.CLOSED)

    def _open(self) -> None:
        self._change(State.OPEN)
        self._until = self._clock() + self._policy.pause
        self.opened += 1

    def _change(self, state: State) -> None:
        self.state = state
        self._turn += 1
        self._probing = self._succeeded = 0
        self._calls.clear()
        self._failures.clear()

    def __repr__(self) -> str:
        return f"<Breaker {self._service} {self.state.value}>"
