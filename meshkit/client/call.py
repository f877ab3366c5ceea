"""One HTTP call: as its caller made it, and what has become of it so far."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshkit import identity
from meshkit.client.headers import merge_headers
from meshkit.client.request import StreamedBody, is_replayable
from meshkit.client.transport import Content, RawResponse, RawStream, Request
from meshkit.context import CallContext
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.routing import Picker
from meshkit.discovery.target import Pick
from meshkit.errors import CallError
from meshkit.propagation import DEADLINE, format_deadline, outgoing

if TYPE_CHECKING:
    from meshkit.client.plan import Plan

LEAST = 0.001  # seconds: 0 could not bound an attempt
SHOWN = 5  # failed attempts in a message
CLOSING: set[asyncio.Future[None]] = set()  # a loop itself does not keep its tasks alive

Raw = TypeVar("Raw", RawResponse, RawStream)


class Call:
    """A call, and its attempts.

    Attributes:
        method: in upper case.
        path: encoded, without the query, which may hold secrets: it is shown in messages.
        query: encoded, with its ``?``, or empty.
        headers: pairs to send.
        content: the body.
        timeout: seconds for the whole call.
        picker: picks its instances.
        deadline: when the server may give up, on the monotonic clock; None for never.
        inherited: the timeout is what was left to the call being handled.
        plan: what may be done for it beyond one attempt.
        idempotent: processing it twice does the same as processing it once.
        started: when it was made, on the monotonic clock.
        attempts: how many began.
        sent: how many of those that failed or are overdue may have been processed.
        tried: ids of instances not to be asked now.
        out: those of them that are not to be asked again: unreachable, or still busy with it.
        failures: why attempts failed, in order.
        handled: the one that failed last may have been processed.
        over: what it met with is not mended by repeating it.
        kept: the last answer that was not good; the caller gets it if there is no better one.
        pauses: how often it waited before an attempt.
        retry_after: seconds that the last answer asked to wait.
        most: bytes that the answer may have; any number if 0.
    """

    # What most calls never change.
    inherited = False
    sent = 0
    tried: tuple[str, ...] = ()
    out: tuple[str, ...] = ()
    failures: tuple[CallError, ...] = ()
    handled = False
    over = False
    kept: Answer[Any] | None = None
    pauses = 0
    retry_after = 0.0
    most = 0

    def __init__(
        self,
        method: str,
        path: str,
        query: str,
        headers: list[tuple[str, str]],
        content: Content,
        *,
        timeout: float,
        picker: Picker,
        plan: Plan,
        idempotent: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.content = content
        self.timeout = timeout
        self.picker = picker
        self.plan = plan
        self.idempotent = idempotent
        self.attempts = 0
        self.deadline: float | None = None
        self.started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the call was made."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds that the call may still take; never 0."""
        return max(self.timeout - self.elapsed, LEAST)

    @property
    def limit(self) -> str:
        """The timeout, and whose it is."""
        if self.inherited:
            return f"the {self.timeout:.3g} s that were left to the call being handled"
        return f"{self.timeout:g} s"

    def inherit(self, context: CallContext) -> None:
        """Take on what the call being handled has brought along; own headers win."""
        self.headers = merge_headers(outgoing(context), self.headers)
        if (left := context.remaining) is not None:
            self.deadline = context.deadline
            if left < self.timeout:
                self.timeout, self.inherited = left, True

    @property
    def replayable(self) -> bool:
        """Whether the body can be sent from its beginning (still, or once more)."""
        return is_replayable(self.content)

    def patience(self) -> float | None:
        """Return after how many seconds without an answer another instance is asked too."""
        if (
            not self.idempotent
            or self.sent + 1 >= self.plan.retry.attempts
            or isinstance(self.content, StreamedBody)
        ):
            return None
        return self.plan.patience()

    def request(self, pick: Pick, now: float) -> Request:
        """Return the request of the next attempt, which begins now."""
        peer = pick.instance.id
        headers = self.headers.copy()
        if identity.proves_identity(pick.instance.metadata):
            # Only then: an engine may know an instance by an id that it does not have itself.
            headers.append((identity.TARGET, peer))
        if self.deadline is not None:
            headers.append((DEADLINE, format_deadline(self.deadline - now)))
        url = f"http://{pick.endpoint}{self.path}{self.query}"
        self.attempts += 1
        left = max(self.started + self.timeout - now, LEAST)
        return Request(self.method, url, headers, self.content, left, peer, self.most)

    def exclude(self, instance_id: str) -> None:
        """Do not ask this instance for now."""
        if instance_id not in self.tried:
            self.tried += (instance_id,)

    def obstacle(self) -> str | None:
        """Return why the attempt that failed last may not be followed by another one."""
        if self.over:
            return ""
        if self.plan.retry.may_retry(
            sent=self.sent,
            unprocessed=not self.handled,
            idempotent=self.idempotent,
            replayable=self.replayable,
        ):
            return None
        if not self.replayable:
            return "not repeated, as its body was a stream"
        if not self.idempotent:
            return f"not repeated, as {self.method} may have had an effect"
        return f"given up after {self.counted()}"

    def listed(self) -> str:
        """Return what each failed attempt met with, on one line even for a hundred of them."""
        parts = [str(failure) for failure in self.failures[:SHOWN]]
        if len(self.failures) > SHOWN:
            parts.append(f"and {len(self.failures) - SHOWN} more")
        return "; ".join(parts)

    def counted(self) -> str:
        """Return the number of attempts in words."""
        return f"{self.attempts} attempt{'s' * (self.attempts > 1)}"


class Answer(Generic[Raw]):
    """An instance's answer. Whoever receives it calls :meth:`done`.

    Attributes:
        pick: who answered.
        request: what was answered.
        raw: the answer.
        outcome: what it says of the instance.
    """

    __slots__ = ("_reported", "outcome", "pick", "raw", "request")
    raw: Raw

    def __init__(self, pick: Pick, request: Request, raw: Raw, outcome: Outcome) -> None:
        self.pick = pick
        self.request = request
        self.raw = raw
        self.outcome = outcome
        self._reported = False

    def done(self, outcome: Outcome) -> None:
        """Tell the balancer how the attempt ended; only the first time counts."""
        if not self._reported:
            self._reported = True
            self.pick.done(outcome)

    def drop(self) -> None:
        """Let go of an answer that nobody reads."""
        self.done(self.outcome)
        if isinstance(self.raw, RawStream):
            closing = asyncio.ensure_future(self.raw.aclose())
            CLOSING.add(closing)
            closing.add_done_callback(CLOSING.discard)
