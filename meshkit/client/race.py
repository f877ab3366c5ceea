"""A second attempt that begins while the first one goes on.

The first attempt runs in its caller's own task, as in a call without any of this. Only when it is
overdue does the rest of the call get a task of its own; if that is answered first, it cancels the
caller's wait, in the way of ``asyncio.timeout``, and the call goes on with its answer.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic

from meshkit.client.call import Answer, Call, Raw
from meshkit.client.transport import Request
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.target import Pick

if TYPE_CHECKING:
    from meshkit.client.exchange import Exchange


class Race(Generic[Raw]):
    """An attempt under way, and the rest of its call if that has begun. See ``Waiting``.

    Attributes:
        rest: the rest of the call, once it has begun.
    """

    __slots__ = (
        "_attempts",
        "_before",
        "_call",
        "_context",
        "_exchange",
        "_given_up",
        "_pick",
        "_second",
        "_send",
        "_task",
        "_won",
        "due",
        "over",
        "rest",
    )
    _exchange: Exchange
    _call: Call
    _pick: Pick
    _send: Callable[[Request], Awaitable[Raw]]

    def __init__(
        self,
        exchange: Exchange,
        call: Call,
        send: Callable[[Request], Awaitable[Raw]],
        pick: Pick,
    ) -> None:
        self._exchange = exchange
        self._call = call
        self._send = send
        self._pick = pick
        # Asking for the running loop is a system call before Python 3.12.
        self._task = asyncio.current_task(exchange.loop)
        self._context = contextvars.copy_context()
        self._second: Pick | None = None
        self._won = False
        self._given_up = False
        self.due = 0.0
        self.over = False
        self.rest: asyncio.Task[Answer[Raw]] | None = None

    def overdue(self) -> None:
        """Begin the rest of the call, if there is somebody to ask and the budget allows it."""
        assert self._task is not None
        pick = self._exchange.second(self._call, self._pick)
        if pick is None:
            return
        self._second = pick
        self._attempts = self._call.attempts
        self._before = self._task.cancelling()
        rest = self._exchange.attempts(self._call, self._send, pick)
        self.rest = self._exchange.loop.create_task(rest, context=self._context)
        self.rest.add_done_callback(self._decide)

    def _decide(self, rest: asyncio.Task[Answer[Raw]]) -> None:
        if rest.cancelled():
            second, self._second = self._second, None
            if second is not None and self._call.attempts == self._attempts:
                second.done(Outcome.CANCELLED)  # it could not even begin
        elif rest.exception() is not None:
            return
        elif self._given_up:
            rest.result().drop()
        elif not self.over and self._exchange.is_good(self._call, rest.result()):
            assert self._task is not None
            self._won = True
            self._task.cancel()

    def end(self) -> bool:
        """Note that the attempt has ended. True when it was cancelled for the rest of the call.

        False when it was cancelled from outside, whether or not there is an answer too.
        """
        won, self._won = self._won, False
        if not won:
            return False
        assert self._task is not None
        return self._task.uncancel() <= self._before

    def give_up(self) -> None:
        """Let go of the rest of the call, whatever becomes of it."""
        if self.rest is None:
            return
        self._given_up = self._call.over = True
        if not self.rest.cancel():
            # The library may also swallow a cancellation, if it has an answer at that moment.
            self._decide(self.rest)
