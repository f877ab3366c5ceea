"""When a failed call is tried on another instance.

A call that surely reached nobody may go on to every instance of the list. One that may have had
an effect is repeated only when it is idempotent, and only so often: each repetition is load that
a struggling service has to carry on top. What all of a service's clients may add together is
bounded by its :class:`~meshkit.client.budget.RetryBudget`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection

from meshkit.client.stats import CallStats
from meshkit.errors import ConfigError
from meshkit.numbers import check_numbers

__all__ = ["IDEMPOTENT_METHODS", "CallStats", "RetryPolicy"]

# https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
IDEMPOTENT_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})

# https://grpc.io/docs/guides/status-codes/
GRPC_CODES = frozenset(
    {
        "ABORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
        "DATA_LOSS",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
        "UNIMPLEMENTED",
        "UNKNOWN",
    }
)

USUALLY = 3.0  # times the usual slow answer: a call that takes longer is not just slow
DOUBLINGS = 16  # of the back-off; it has long reached its cap


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Whether an attempt is followed by another one, on another instance.

    Attributes:
        attempts: how many times a call may reach a server, the first included; 1 means that
            only calls which surely were not handled go on to another instance.
        try_timeout: seconds without an answer after which an idempotent call is also sent to
            another instance, while the first attempt goes on; whichever answers first wins.
            Never less than three times what the service's slow answers (95th percentile) usually
            take, so that a slow service is not called twice for everything. None: never.
        statuses: HTTP statuses after which an idempotent call is repeated.
        codes: the same for gRPC, by name.
        backoff: seconds, the bound of the first pause. There is a pause only when nobody else is
            left to ask, or nobody may be asked sooner (``Retry-After``). It is anything between
            0 and the bound ("full jitter"), which doubles with each pause.
        backoff_cap: seconds, the largest bound. A ``Retry-After`` beyond it is waited for only when
            the instance was too busy to handle the call; else the answer is returned.
    """

    attempts: int = 3
    try_timeout: float | None = 0.4
    statuses: Collection[int] = frozenset({502, 503, 504})
    codes: Collection[str] = frozenset({"UNAVAILABLE"})
    backoff: float = 0.025
    backoff_cap: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.attempts < 1:
            raise ConfigError(f"RetryPolicy: attempts must be at least 1, not {self.attempts}")
        if self.try_timeout is not None and not self.try_timeout > 0:
            raise ConfigError(
                f"RetryPolicy: try_timeout must be more than 0 s, not {self.try_timeout:g}; "
                f"None: never"
            )
        if not 0 <= self.backoff <= self.backoff_cap:
            raise ConfigError(
                f"RetryPolicy: backoff must be from 0 to backoff_cap, "
                f"not {self.backoff:g} with a cap of {self.backoff_cap:g}"
            )
        for name in ("statuses", "codes"):
            if isinstance(value := getattr(self, name), str) or not isinstance(value, Collection):
                raise ConfigError(f"RetryPolicy: {name} must be a set, as in {{{value!r}}}")
        for status in self.statuses:
            if not isinstance(status, int) or not 400 <= status <= 599:
                raise ConfigError(f"RetryPolicy: statuses must be from 400 to 599, not {status!r}")
        for code in self.codes:
            if code not in GRPC_CODES:
                raise ConfigError(
                    f"RetryPolicy: codes must be names of gRPC errors, as in 'UNAVAILABLE', "
                    f"not {code!r}"
                )
        # Equal policies share a client, so that a policy has to be hashable.
        object.__setattr__(self, "statuses", frozenset(self.statuses))
        object.__setattr__(self, "codes", frozenset(self.codes))

    def may_retry(
        self, *, sent: int, unprocessed: bool, idempotent: bool, replayable: bool = True
    ) -> bool:
        """Tell whether another instance may be tried, if the budget allows it.

        Args:
            sent: attempts so far that may have been processed, the one that just failed included.
            unprocessed: the attempt surely had no effect: refused, or meant for somebody else.
            idempotent: processing the call twice does the same as processing it once.
            replayable: the body can be sent once more.
        """
        if not replayable:
            return False
        return unprocessed or (idempotent and sent < self.attempts)

    def patience(self, slow: float) -> float | None:
        """Return after how many seconds a second attempt begins; None for never.

        Args:
            slow: seconds that slow answers of the service usually take.
        """
        if self.try_timeout is None or self.attempts == 1:
            return None
        return max(self.try_timeout, USUALLY * slow)

    def pause(self, before: int, at_least: float = 0.0) -> float:
        """Return the seconds to wait before asking again.

        Args:
            before: how many pauses the call has made.
            at_least: seconds that the server asked for.
        """
        bound = min(self.backoff * 2 ** min(before, DOUBLINGS), self.backoff_cap)
        return at_least + random.uniform(0, bound)  # noqa: S311 - no secret
