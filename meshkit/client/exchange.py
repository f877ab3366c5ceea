"""One call: attempts on one instance after another, until one answers or none may be tried."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from meshkit import identity
from meshkit.client.request import is_replayable
from meshkit.client.retry import IDEMPOTENT_METHODS, CallStats, RetryPolicy
from meshkit.client.transport import Content, RawResponse, RawStream, Request
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.target import Pick, Target
from meshkit.errors import (
    CallError,
    CallTimeout,
    ConnectError,
    ConnectionLost,
    NoInstances,
    WrongInstance,
)
from meshkit.model import Instance

TRANSPORT = "http"
MISDIRECTED = 421
SHOWN = 5  # failed attempts in a message

log = logging.getLogger("meshkit.client")

Raw = TypeVar("Raw", RawResponse, RawStream)


@dataclasses.dataclass(slots=True)
class Call:
    """A call as its caller made it, and what has been tried so far.

    Attributes:
        method: in upper case.
        path: encoded, without the query, which may hold secrets: it is shown in messages.
        query: encoded, with its ``?``, or empty.
        headers: pairs to send.
        content: the body.
        timeout: seconds for the whole call.
        started: when it was made, on the monotonic clock.
        tried: ids of the instances that failed, in order.
        failures: why, in the same order.
        sent: how many of them may have processed the request.
    """

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    content: Content
    timeout: float
    started: float = dataclasses.field(default_factory=time.monotonic)
    tried: list[str] = dataclasses.field(default_factory=list)
    failures: list[CallError] = dataclasses.field(default_factory=list)
    sent: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the call was made."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds that the call may still take; never 0, so that it can bound an attempt."""
        return max(self.timeout - self.elapsed, 0.001)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer(Generic[Raw]):
    """An instance's answer. Whoever receives it calls ``pick.done(outcome)``, once."""

    pick: Pick
    request: Request
    raw: Raw
    outcome: Outcome


class Exchange:
    """Carries out the calls to one service."""

    def __init__(self, target: Target, retry: RetryPolicy, stats: CallStats) -> None:
        self._target = target
        self._retry = retry
        self._stats = stats

    async def run(self, call: Call, send: Callable[[Request], Awaitable[Raw]]) -> Answer[Raw]:
        """Try instances until one answers.

        Raises:
            NoInstances: nobody is known, or everybody that is known was tried.
            ConnectionLost, WrongInstance: an attempt failed, and may not be repeated.
            CallTimeout: the call's time is over.
        """
        self._stats.calls += 1
        try:
            while True:
                pick = await self._pick(call)
                if call.failures:
                    self._stats.retried += 1
                    reason = f"{call.failures[-1]}; trying {pick.instance.id}"
                    log.debug("%s", self._line(call, reason))
                answer = await self._attempt(call, pick, send)
                if answer is not None:
                    return answer
        except CallError:
            self._stats.failed += 1
            raise

    async def _pick(self, call: Call) -> Pick:
        """Choose an instance that was not tried, waiting for the first list if need be."""
        try:
            pick = self._target.try_pick(TRANSPORT, call.tried)
            if pick is None:
                async with asyncio.timeout(call.left):
                    pick = await self._target.pick(TRANSPORT, call.tried)
        except NoInstances:
            if not call.failures:
                raise
            reason = f"no instance left to try after {_attempts(call)}: {_listed(call)}"
            raise NoInstances(self._line(call, reason)) from call.failures[-1]
        except TimeoutError:
            reason = f"no list of instances within {call.timeout:g} s"
            raise CallTimeout(self._line(call, reason)) from None
        return pick

    async def _attempt(
        self, call: Call, pick: Pick, send: Callable[[Request], Awaitable[Raw]]
    ) -> Answer[Raw] | None:
        """Return the instance's answer; None when it failed and another one may be tried."""
        request = _request(call, pick)
        try:
            raw = await send(request)
        except CallError as error:
            refused = isinstance(error, ConnectError)
            pick.done(Outcome.REFUSED if refused else Outcome.FAILED)
            self._failed(call, pick, error, unprocessed=refused)
            return None
        except BaseException:
            pick.done(Outcome.CANCELLED)
            raise
        stranger = identify(pick.instance, raw)
        if stranger is None:
            return Answer(pick, request, raw, judge(raw))
        pick.done(Outcome.WRONG)
        if isinstance(raw, RawStream):
            await raw.aclose()
        refused = raw.status_code == MISDIRECTED and identity.INSTANCE in raw.headers
        self._failed(call, pick, stranger, unprocessed=refused)
        return None

    def _failed(self, call: Call, pick: Pick, error: CallError, *, unprocessed: bool) -> None:
        """Note a failed attempt; raise it unless another instance may be tried."""
        kind = type(error)
        failure = kind(f"{pick.instance.id} ({pick.endpoint}) {error}")
        call.tried.append(pick.instance.id)
        call.failures.append(failure)
        call.sent += not unprocessed
        if isinstance(error, CallTimeout):
            reason = f"no answer within {call.timeout:g} s: {_listed(call)}"
            raise kind(self._line(call, reason)) from None
        if not isinstance(error, ConnectError | ConnectionLost | WrongInstance):
            raise kind(self._line(call, _listed(call))) from None
        if not self._retry.may_retry(
            sent=call.sent,
            unprocessed=unprocessed,
            idempotent=call.method in IDEMPOTENT_METHODS,
            replayable=is_replayable(call.content),
        ):
            raise kind(self._line(call, f"{_listed(call)}; {_why_not(call)}")) from None

    def _line(self, call: Call, reason: str) -> str:
        return f"{self._target.service}: {call.method} {call.path}: {reason}"


def _request(call: Call, pick: Pick) -> Request:
    headers = call.headers
    if identity.proves_identity(pick.instance.metadata):
        # Only then: an engine may know an instance by an id that it does not have itself.
        headers = [*headers, (identity.TARGET, pick.instance.id)]
    url = f"http://{pick.endpoint}{call.path}{call.query}"
    return Request(call.method, url, headers, call.content, call.left, pick.instance.id)


def identify(instance: Instance, raw: RawResponse | RawStream) -> WrongInstance | None:
    """Return the error when somebody other than ``instance`` answered."""
    if not identity.proves_identity(instance.metadata):
        return None
    named = raw.headers.get(identity.INSTANCE)
    # A service that passes on another one's answer with all its headers adds its own name.
    if named == instance.id or instance.id in raw.headers.get_list(identity.INSTANCE):
        return None
    return WrongInstance(f"was answered for by {named or 'somebody who gives no name'}")


def judge(raw: RawResponse | RawStream) -> Outcome:
    """Return what an answer says of the instance that gave it."""
    leaving = raw.headers.get(identity.DRAINING)
    # A gateway may pass on the mark of whom it called; only its own is about it.
    if leaving is not None and leaving == raw.headers.get(identity.INSTANCE):
        return Outcome.DRAINING
    return Outcome.FAILED if raw.status_code >= 500 else Outcome.OK


def _attempts(call: Call) -> str:
    count = len(call.failures)
    return f"{count} attempt{'s' * (count > 1)}"


def _listed(call: Call) -> str:
    """Return what each attempt met with, on one line even for a hundred instances."""
    parts = [str(failure) for failure in call.failures[:SHOWN]]
    if len(call.failures) > SHOWN:
        parts.append(f"and {len(call.failures) - SHOWN} more")
    return "; ".join(parts)


def _why_not(call: Call) -> str:
    if not is_replayable(call.content):
        return "not repeated, as its body was a stream"
    if call.method not in IDEMPOTENT_METHODS:
        return f"not repeated, as {call.method} may have had an effect"
    return f"given up after {_attempts(call)}"
