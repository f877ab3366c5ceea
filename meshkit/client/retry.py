"""When a failed call is tried on another instance, and how often that happened.

A call that surely reached nobody may go on to every instance of the list. One that may have had
an effect is repeated only when it is idempotent, and only so often: each repetition is load that
a struggling service has to carry on top.
"""

from __future__ import annotations

import dataclasses

from meshkit.errors import ConfigError

# https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
IDEMPOTENT_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Whether a failed attempt is followed by another one, on another instance.

    Attributes:
        attempts: how many times a call may reach a server, the first included; 1 means that
            only calls which surely reached nobody go on to another instance.
    """

    attempts: int = 3

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"RetryPolicy: attempts must be at least 1, not {self.attempts}")

    def may_retry(
        self, *, sent: int, unprocessed: bool, idempotent: bool, replayable: bool = True
    ) -> bool:
        """Tell whether another instance may be tried.

        Args:
            sent: attempts so far that may have been processed, the one that just failed included.
            unprocessed: the attempt surely had no effect: refused, or meant for somebody else.
            idempotent: processing the call twice does the same as processing it once.
            replayable: the body can be sent once more.
        """
        if not replayable:
            return False
        return unprocessed or (idempotent and sent < self.attempts)


@dataclasses.dataclass(slots=True)
class CallStats:
    """Counters of one client since it was made.

    Attributes:
        calls: calls made, whatever became of them.
        failed: calls that raised a :class:`~meshkit.errors.CallError` to their caller.
        retried: further attempts, on top of the first one of each call.
    """

    calls: int = 0
    failed: int = 0
    retried: int = 0
