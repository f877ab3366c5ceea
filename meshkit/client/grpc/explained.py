"""What a call tells its caller when it fails: whom it tried, what each said, why it stopped."""

from __future__ import annotations

from typing import Any

from meshkit.client.grpc.errors import RpcFailure, RpcNoInstances, RpcTimeout
from meshkit.client.grpc.verdict import Verdict
from meshkit.errors import NoInstances

SHOWN = 5  # failed attempts in a message
TOO_LATE = "not sent, as the deadline of the call being handled has passed"
LEFT_OVER = "no answer within the {:.3g} s that were left to the call being handled"


class Explained:
    """The failures of one call's attempts, and the errors made of them."""

    _method: Any
    _inner: Any = None
    _held: Any = None  # the failed attempt's call, while the next one waits
    _timeout: float
    _verdict: Verdict | None = None  # of the attempt that failed last
    _failures: tuple[str, ...] = ()
    _replayable = True
    _spent = False  # the retry budget
    _absence = "nothing was sent"
    _lateness = "no answer within {:g} s"

    def _nobody(self, error: NoInstances) -> RpcFailure | None:
        """Return the error when nobody is left to try; None when the last answer is the error."""
        if self._verdict is None:
            return RpcNoInstances(str(error))
        if self._verdict.error is None and (self._inner or self._held) is not None:
            return None
        count = len(self._failures)
        attempts = f"{count} attempt{'s' * (count > 1)}"
        line = self._line(f"no instance left to try after {attempts}: {self._listed()}")
        failure = RpcNoInstances(line)
        if self._verdict.error is not None:
            failure.__cause__ = self._verdict.error(self._failures[-1])
        return failure

    def _too_late(self) -> RpcFailure:
        if self._timeout <= 0 and self._lateness is LEFT_OVER:
            return RpcTimeout(self._line(TOO_LATE))
        late = self._lateness.format(self._timeout)
        return RpcTimeout(self._line(f"{late}: {self._listed() or self._absence}"))

    def _final(self, verdict: Verdict) -> RpcFailure | None:
        """Return the error of an attempt that is not followed by another one."""
        if verdict.error is None:
            return None
        if verdict.error is RpcTimeout:
            return self._too_late()
        return verdict.error(self._line(f"{self._listed()}; {self._why_not()}"))

    def _why_not(self) -> str:
        if self._spent:
            return "not repeated, as the retry budget of this service is used up"
        if not self._replayable:
            return "not repeated, as its messages were a stream"
        if not self._method.idempotent:
            return "not repeated, as it is not known to be idempotent"
        return f"given up after {len(self._failures)} attempts"

    def _line(self, reason: str) -> str:
        return f"{self._method.channel.service}: {self._method.path}: {reason}"

    def _listed(self) -> str:
        more = len(self._failures) - SHOWN
        tail = (f"and {more} more",) if more > 0 else ()
        return "; ".join((*self._failures[:SHOWN], *tail))
