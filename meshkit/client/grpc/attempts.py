"""How a call moves from instance to instance until one answers."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

from meshkit import identity
from meshkit.backoff import Backoff
from meshkit.client.grpc.errors import Cancelled, RpcFailure, RpcNoInstances, RpcTimeout
from meshkit.client.grpc.method import Method
from meshkit.client.grpc.pool import Link
from meshkit.client.grpc.verdict import Next, Verdict, assess
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.target import Pick
from meshkit.errors import NoInstances

TRANSPORT = "grpc"
SHOWN = 5  # failed attempts in a message
# Between two looks for somebody who can be called (wait_for_ready).
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0

log = logging.getLogger("meshkit.client")

Result = TypeVar("Result")


class Attempt:
    """Carries the end of one attempt from gRPC to its call.

    gRPC's call object may keep it for as long as it lives itself. So it lets go of the call at
    the end, and never has gRPC's object: in a circle of references, both would keep a connection
    open until the garbage collector comes.
    """

    __slots__ = ("_call", "link", "pick")

    def __init__(self, call: Attempts, pick: Pick, link: Link) -> None:
        self._call: Attempts | None = call
        self.pick = pick
        self.link = link

    def ended(self, inner: grpc.aio.Call) -> None:
        """Tell the call; gRPC calls this once."""
        call, self._call = self._call, None
        assert call is not None
        call.ended(self, assess(self.pick.instance, inner, self.link.channel))

    def __str__(self) -> str:
        return f"{self.pick.instance.id} ({self.pick.endpoint})"


class Attempts:
    """One call's attempts; the objects that callers get are made of it.

    The first one begins at once, as calls do in gRPC, and each further one in the callback by
    which gRPC reports the end of the one before. So a call goes on whether or not anybody awaits
    it, and costs no task of its own, except while it waits for somebody to call.
    """

    # What most calls never change.
    _inner: Any = None  # gRPC's own call object, of the attempt under way or the last one
    _verdict: Verdict | None = None
    _search: asyncio.Task[None] | None = None
    _backoff: Backoff | None = None
    _over = False
    _error: Exception | None = None
    _replayable = True
    _sent = 0
    _tried: tuple[str, ...] = ()
    _failures: tuple[str, ...] = ()
    _absence = "nothing was sent"
    _lateness = "no answer within {:g} s"
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    _waiters: tuple[asyncio.Future[None], ...] = ()

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
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._timeout = self._channel.timeout if timeout is None else timeout
        self._deadline = self._loop.time() + self._timeout if self._timeout < math.inf else None
        # A handler that passes on all metadata that it got would name itself as the target.
        self._metadata = metadata and tuple(pair for pair in metadata if pair[0] != identity.TARGET)
        self._picker = self._channel.router.aim(self._metadata)
        self._wait_for_ready = wait_for_ready
        self._options = {"credentials": credentials, "compression": compression}
        self._channel.opened(self)
        try:
            self._advance()
        except Exception as error:
            self._end(error)
            raise

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

    async def over(self) -> None:
        """Wait until the call has ended."""
        while not self._over:
            await self._changed()

    def _advance(self) -> None:
        """Begin the next attempt; if that takes waiting, begin to wait."""
        try:
            pick = self._picker.try_pick(TRANSPORT, self._tried)
        except NoInstances as error:
            if self._wait_for_ready:
                self._look()
            else:
                self._end(self._nobody(error))
            return
        if pick is None:
            self._look()
        else:
            self._begin(pick)

    def _begin(self, pick: Pick) -> None:
        """Call the picked instance."""
        left = self._left()
        if left is not None and left <= 0:
            pick.done(Outcome.CANCELLED)
            self._end(self._too_late())
            return
        try:
            link, call = self._method.bind(pick)
            metadata = link.metadata
            if self._metadata:
                metadata = grpc.aio.Metadata(*self._metadata, *metadata)
            # gRPC never waits for the instance to become ready: the next one may be.
            inner = call(self._argument(), timeout=left, metadata=metadata, **self._options)
        except BaseException:
            pick.done(Outcome.CANCELLED)
            raise
        link.acquire()
        if self._verdict is not None:
            self._channel.stats.retried += 1
        self._inner = inner
        if self._waiters:
            self._notify()
        inner.add_done_callback(Attempt(self, pick, link).ended)

    def _argument(self) -> Any:
        return self._request

    def ended(self, attempt: Attempt, verdict: Verdict) -> None:
        """Learn how an attempt ended: end with it, or begin the next one."""
        attempt.pick.done(verdict.outcome)
        attempt.link.release()
        if verdict.next is Next.NOTHING and verdict.error is None:
            self._end(None)
            return
        self._verdict = verdict
        self._failures += (f"{attempt} {verdict.reason}",)
        self._tried += (attempt.pick.instance.id,)
        self._sent += verdict.next is not Next.ELSEWHERE
        if not self._may_retry(verdict):
            self._end(self._final(verdict))
            return
        log.debug("%s; trying another instance", self._line(self._failures[-1]))
        self._go_on(self._advance)

    def _may_retry(self, verdict: Verdict) -> bool:
        return verdict.next is not Next.NOTHING and self._channel.retry.may_retry(
            sent=self._sent,
            unprocessed=verdict.next is Next.ELSEWHERE,
            idempotent=self._method.idempotent,
            replayable=self._replayable,
        )

    def _go_on(self, step: Callable[[], None]) -> None:
        """Take a step that nobody waits for, so that its error has to be kept."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - raised where the call is awaited
            self._end(error)

    def _look(self) -> None:
        self._inner = None
        self._search = self._loop.create_task(self._find())

    async def _find(self) -> None:
        """Wait for the first list or, with wait_for_ready, for somebody who can be called."""
        try:
            async with asyncio.timeout_at(self._deadline):
                pick = await self._pick()
        except TimeoutError:
            self._end(self._too_late())
        except NoInstances as error:
            self._end(self._nobody(error))
        else:
            self._go_on(functools.partial(self._begin, pick))

    async def _pick(self) -> Pick:
        while True:
            try:
                return await self._picker.pick(TRANSPORT, self._tried)
            except NoInstances as error:
                if not self._wait_for_ready:
                    raise
                self._absence = str(error)
            self._tried = ()  # all of them may have recovered
            self._failures = self._failures[-SHOWN:]
            self._backoff = self._backoff or Backoff(first=FIRST_PAUSE, cap=LONGEST_PAUSE)
            await asyncio.sleep(self._backoff.next())

    def _end(self, error: Exception | None) -> None:
        """End the call: with what the last attempt got, or with this error."""
        self._over = True
        self._error = error
        self._channel.ended(self, error)
        if self._waiters:
            self._notify()
        for callback in self._callbacks:
            self._loop.call_soon(callback, self)

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._loop.time()

    def _nobody(self, error: NoInstances) -> RpcFailure | None:
        """Return the error when nobody is left to try; None when the last answer is the error."""
        if self._verdict is None:
            return RpcNoInstances(str(error))
        if self._verdict.error is None and self._inner is not None:
            return None
        count = len(self._failures)
        attempts = f"{count} attempt{'s' * (count > 1)}"
        line = self._line(f"no instance left to try after {attempts}: {self._listed()}")
        failure = RpcNoInstances(line)
        if self._verdict.error is not None:
            failure.__cause__ = self._verdict.error(self._failures[-1])
        return failure

    def _too_late(self) -> RpcFailure:
        late = self._lateness.format(self._timeout)
        return RpcTimeout(self._line(f"{late}: {self._listed() or self._absence}"))

    def _final(self, verdict: Verdict) -> RpcFailure | None:
        """Return the error of an attempt that is not followed by another one."""
        if verdict.error is None:
            return None
        if verdict.error is RpcTimeout:
            return self._too_late()
        if not self._replayable:
            why = "not repeated, as its messages were a stream"
        elif not self._method.idempotent:
            why = "not repeated, as it is not known to be idempotent"
        else:
            why = f"given up after {len(self._failures)} attempts"
        return verdict.error(self._line(f"{self._listed()}; {why}"))

    def _line(self, reason: str) -> str:
        return f"{self._channel.service}: {self._method.path}: {reason}"

    def _listed(self) -> str:
        more = len(self._failures) - SHOWN
        tail = (f"and {more} more",) if more > 0 else ()
        return "; ".join((*self._failures[:SHOWN], *tail))

    async def _through(self, operation: Callable[[Any], Awaitable[Result]]) -> Result:
        """Do something with the attempt under way, and again if meanwhile another one began."""
        while True:
            inner = self._inner or await self._current()
            try:
                result = await operation(inner)
            except grpc.aio.AioRpcError as error:
                if inner is self._inner:
                    self._raise(error)
            else:
                if inner is self._inner:
                    return result

    async def _current(self) -> Any:
        """Return gRPC's call object; wait for it while nobody is called."""
        while self._inner is None:
            if self._over:
                self._raise(self._error)
            try:
                await self._changed()
            except asyncio.CancelledError:
                self.cancel()  # whoever stops waiting for a call gives it up, as in gRPC
                raise
        return self._inner

    def _raise(self, error: Exception | None) -> NoReturn:
        """Raise the call's own error, or else this one."""
        error = self._error or error
        assert error is not None
        if isinstance(error, Cancelled):
            raise asyncio.CancelledError
        raise error from error.__cause__

    async def _changed(self) -> None:
        """Wait until an attempt begins or the call ends."""
        waiter = self._loop.create_future()
        self._waiters += (waiter,)
        await waiter

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
