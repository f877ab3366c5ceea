"""How a call moves from instance to instance until one answers."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from meshkit import identity
from meshkit.client.grpc.attempt import Attempt
from meshkit.client.grpc.errors import Cancelled
from meshkit.client.grpc.explained import LEFT_OVER
from meshkit.client.grpc.search import TRANSPORT, Search
from meshkit.client.grpc.verdict import Next, Verdict, finished
from meshkit.context import OUTSIDE, CallContext, current
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.target import Pick
from meshkit.errors import NoInstances
from meshkit.propagation import DEADLINE, format_deadline, outgoing

if TYPE_CHECKING:
    from meshkit.client.grpc.method import Method

# On further attempts: how many came before. A6 (https://github.com/grpc/proposal) has the name
# grpc-previous-rpc-attempts for it, which gRPC's core takes out of what we send, unless it is told
# not to repeat by itself what never left: that is worth more than the name.
PREVIOUS = "x-meshkit-previous-attempts"

# Looking up members of an enum is slow before Python 3.12.
OK, SHED, NOTHING = Outcome.OK, Outcome.SHED, Next.NOTHING

log = logging.getLogger("meshkit.client")


class Attempts(Search):
    """One call's attempts; the objects that callers get are made of it.

    The first one begins at once, as calls do in gRPC, and each further one in the callback by
    which gRPC reports the end of the one before. So a call goes on whether or not anybody awaits
    it, and costs no task of its own, except while it waits for somebody to call.

    An idempotent call with one message each way may have several attempts under way: one that
    does not answer in time goes on while another instance is asked. The first good answer wins,
    and the others are given up.
    """

    # What most calls never change.
    _attempt: Attempt | None = None  # the one that counts, as _inner is its call
    _racing: tuple[tuple[Attempt, Any], ...] = ()  # all under way, if more than one
    _sent = 0
    _moved = False  # past a refused connection
    _paid = False  # for the attempt that is to come, from the budget
    _told_not_to = False
    _outcome = Outcome.CANCELLED  # of the attempt that ended last
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    trace: Any = None  # told of attempts that the call does not end with

    def __init__(
        self,
        method: Method,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> None:
        self._method = method
        self._channel = method.channel
        self.plan = method.plan
        self._patient = method.patient
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._timeout = self._channel.timeout if timeout is None else timeout
        # A handler that passes on all metadata that it got would name itself as the target.
        self._metadata = metadata and tuple(pair for pair in metadata if pair[0] != identity.TARGET)
        self._picker = self._channel.router.aim(self._metadata, method.key)
        if (context := current()) is not OUTSIDE:
            self._inherit(context)
        self._deadline = self._loop.time() + self._timeout if self._timeout < math.inf else None
        self._wait_for_ready = wait_for_ready
        self._credentials = credentials
        self._compression = compression
        self._channel.opened(self)
        try:
            self._enter() if self.plan.guarded else self._advance()
        except Exception as error:
            self._end(error)
            raise

    def _inherit(self, context: CallContext) -> None:
        """Take on what the call being handled has brought along; the caller's own metadata wins."""
        left = context.remaining
        if left is not None and left < self._timeout:
            self._timeout, self._lateness = left, LEFT_OVER
        own = self._metadata or ()
        names = {pair[0] for pair in own}
        self._metadata = (*own, *(pair for pair in outgoing(context) if pair[0] not in names))

    def carry(self, names: Collection[str], pairs: Sequence[tuple[str, str]]) -> None:
        """Send these along, in place of what has one of the names."""
        kept = (pair for pair in self._metadata or () if pair[0] not in names)
        self._metadata = (*kept, *pairs)

    @property
    def service(self) -> str:
        """The name of the service that is called."""
        return self._channel.service

    @property
    def method_path(self) -> str:
        """The method that is called: ``/package.Service/Method``."""
        path: str = self._method.path
        return path

    @property
    def attempt(self) -> Attempt | None:
        """The one that counts."""
        return self._attempt

    @property
    def inner(self) -> Any:
        """Its call object, gRPC's own."""
        return self._inner

    def cancel(self) -> bool:
        """End the call. False when it has ended already."""
        if self._over:
            return False
        if self._inner is not None:
            return bool(self._inner.cancel())
        if self._search is not None:
            self._search.cancel()
        self._end(Cancelled())
        return True

    def _enter(self) -> None:
        """Ask for leave to begin."""
        raise NotImplementedError

    def _leave(self, error: Exception | None) -> None:
        """Say that the call has ended."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Begin the next attempt; if that takes waiting, begin to wait."""
        exclude = self._tried
        if self._outcome is SHED:
            # Who was too busy is alive, and says when to ask again. Who is set aside may hang.
            exclude = (*exclude, *self._channel.target.ejections.avoided)
        try:
            pick = self._picker.try_pick(TRANSPORT, exclude)
        except NoInstances as error:
            self._nobody_left(error)
            return
        if pick is None:
            self._look()
        else:
            self._begin(pick)

    def _nobody_left(self, error: NoInstances) -> None:
        if self._wait_for_ready:
            self._look()
        elif self._verdict is not None and self._verdict.next is Next.IF_IDEMPOTENT:
            self._tried = ()
            self._pause(self.plan.retry.pause(self._pauses))
        elif self._outcome is SHED and self._pauses < self.plan.retry.attempts - 1:
            assert self._verdict is not None
            self._tried = ()
            self._pause(self.plan.retry.pause(self._pauses, self._verdict.pushback or 0.0))
        else:
            if self._paid:
                self.plan.guards.budget.give_back()
            self._end(self._nobody(error))

    def _begin(self, pick: Pick, *, further: bool = False) -> None:
        """Call the picked instance."""
        left = self._left()
        if left is not None and left <= 0:
            pick.done(Outcome.CANCELLED)
            if not further:
                self._end(self._too_late())
            return
        try:
            link, call = self._method.bind(pick)
            # gRPC never waits for the instance to become ready: the next one may be.
            metadata = link.metadata
            if self._metadata or self._attempt is not None:
                metadata = self._metadata_with(metadata, left, further=further)
            inner = call(
                self._argument(),
                timeout=left,
                metadata=metadata,
                credentials=self._credentials,
                compression=self._compression,
            )
        except BaseException:
            pick.done(Outcome.CANCELLED)
            raise
        link.acquire()
        attempt = Attempt(self, pick, link)
        if self._attempt is not None:
            self._channel.stats.retried += 1
        if further:
            self._joins(attempt, inner)
        else:
            self._attempt, self._inner = attempt, inner
        if self._waiters:
            self._notify()
        if self._patient and (patience := self.plan.patience()) is not None:
            self.plan.overdue.add(attempt, attempt.began + patience)
        inner.add_done_callback(attempt.ended)

    def _metadata_with(
        self, ours: grpc.aio.Metadata, left: float | None, *, further: bool
    ) -> grpc.aio.Metadata:
        """Return an attempt's metadata: the caller's, the link's, and how many came before.

        And the time left: gRPC tells it itself, but not to a server that wants to know how long
        a call has waited in it.
        """
        previous = self._sent + (max(1, len(self._racing)) if further else 0)
        counted = ((PREVIOUS, str(previous)),) if previous else ()
        timed = ((DEADLINE, format_deadline(left)),) if left is not None else ()
        return grpc.aio.Metadata(*(self._metadata or ()), *ours, *counted, *timed)

    def _argument(self) -> Any:
        return self._request

    def ask_another(self) -> None:
        """Ask a further instance, as the one under way takes long."""
        under_way = max(1, len(self._racing))
        if self._over or self._told_not_to or self._sent + under_way >= self.plan.retry.attempts:
            return
        asked = tuple(each.pick.instance.id for each, _ in self._racing)
        assert self._attempt is not None
        exclude = (*self._tried, *(asked or (self._attempt.pick.instance.id,)))
        try:
            pick = self._picker.try_pick(TRANSPORT, exclude)
        except NoInstances:
            return  # it may answer yet
        if pick is None:
            return
        if self.plan.guards.budget.withdraw():
            self._go_on(functools.partial(self._begin, pick, further=True))
        else:
            pick.done(Outcome.CANCELLED)

    def _joins(self, attempt: Attempt, inner: Any) -> None:
        attempt.further = True
        self._channel.stats.hedged += 1
        assert self._attempt is not None
        self._racing = (*(self._racing or ((self._attempt, self._inner),)), (attempt, inner))

    def ended(self, attempt: Attempt, inner: Any, verdict: Verdict) -> None:
        """Learn how an attempt ended: end with it, or begin the next one."""
        attempt.link.release()
        if attempt.due:
            self.plan.overdue.forget(attempt)
        if attempt.beaten or self._over:
            attempt.pick.done(self._beaten(attempt))
            return
        attempt.pick.done(verdict.outcome)
        if verdict.next is not NOTHING or verdict.error is not None:
            self._failed(attempt, inner, verdict)
            return
        if attempt.due and verdict.outcome is OK:
            self.plan.guards.answered(attempt.seconds)
        if self._racing:
            self._wins(attempt, inner)
        self._outcome = verdict.outcome
        self._end(None)

    def _wins(self, attempt: Attempt, inner: Any) -> None:
        """Let this attempt be the one that counts, and give up the others."""
        self._channel.stats.won += attempt.further
        others, self._racing = self._racing, ()
        self._attempt, self._inner = attempt, inner
        for other, its in others:
            if other is not attempt:
                other.beaten = True
                if self.trace is not None:
                    self.trace.attempted(other, "beaten")
                its.cancel()

    def _beaten(self, attempt: Attempt) -> Outcome:
        """Return what it says of an instance that another one was faster."""
        limit, seconds = self.plan.try_time(), attempt.seconds
        if limit is not None and seconds >= limit:
            self._channel.stats.note(Outcome.TIMEOUT.value)
            return Outcome.TIMEOUT
        # It would have taken at least so long. Left out, hedges would breed hedges.
        self.plan.guards.answered(seconds)
        return Outcome.CANCELLED

    def _failed(self, attempt: Attempt, inner: Any, verdict: Verdict) -> None:
        self._note(attempt, inner, verdict)
        if self._racing and verdict.next is not NOTHING:
            # Another one may answer yet. Not more are asked than were: this one's place is free.
            self._racing = tuple(each for each in self._racing if each[0] is not attempt)
            if inner is self._inner:
                self._attempt, self._inner = self._racing[0]
            if len(self._racing) == 1:
                self._racing = ()
            return
        if self._racing:
            self._wins(attempt, inner)
        if not self._may_retry(verdict):
            self._end(self._final(verdict))
            return
        log.debug("%s; trying another instance", self._line(self._failures[-1]))
        if verdict.pushback and verdict.outcome is not Outcome.SHED:
            self._pause(verdict.pushback)
        else:
            self._go_on(self._advance)

    def _note(self, attempt: Attempt, inner: Any, verdict: Verdict) -> None:
        self._verdict = verdict
        self._outcome = verdict.outcome
        self._failures += (f"{attempt} {verdict.reason}",)
        self._tried += (attempt.pick.instance.id,)
        self._sent += verdict.next is not Next.ELSEWHERE
        self._told_not_to |= verdict.pushback is not None and verdict.pushback < 0
        said = finished(inner.code()).name if verdict.error is None else verdict.outcome.value
        self._channel.stats.note(said)
        if self.trace is not None:
            self.trace.attempted(attempt, said)

    def _may_retry(self, verdict: Verdict) -> bool:
        """Whether another attempt may follow; takes from the budget if so."""
        if verdict.next is NOTHING or self._told_not_to:
            return False
        if not self.plan.retry.may_retry(
            sent=self._sent,
            unprocessed=verdict.next is Next.ELSEWHERE,
            idempotent=self._method.idempotent,
            replayable=self._replayable,
        ):
            return False
        if verdict.outcome is Outcome.REFUSED and not self._moved:
            self._moved = True  # no server has work from it
            return True
        self._paid = self.plan.guards.budget.withdraw()
        self._spent = not self._paid
        return self._paid

    def _end(self, error: Exception | None) -> None:
        """End the call: with what the last attempt got, or with this error."""
        self._over = True
        self._error = error
        if self._inner is None and error is None:
            self._inner = self._held
        self._channel.ended(self, error)
        if self.plan.guarded:
            self._leave(error)
        if self._waiters:
            self._notify()
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)
