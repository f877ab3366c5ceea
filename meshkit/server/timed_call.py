"""A request with a deadline: cancelled, and answered with 504, when its answer is not there."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from meshkit import propagation
from meshkit.context import CallContext
from meshkit.server.answer import ASGIApp, Receive, Scope, Send, answer
from meshkit.server.http_call import HttpCall

DEADLINE = propagation.DEADLINE.encode()

log = logging.getLogger("meshkit.server")


class TimedCall(HttpCall):
    """An HttpCall that lasts so many seconds at most.

    Args:
        scope: of the request.
        send: uvicorn's, or what stands before it.
        context: of the call; the end of the answer lifts its deadline.
        seconds: left to it.
        instance_id: our own.
    """

    __slots__ = ("_ended", "_expired", "_instance_id", "_seconds", "_timer")

    def __init__(
        self, scope: Scope, send: Send, context: CallContext, seconds: float, instance_id: str
    ) -> None:
        super().__init__(scope, send, context)
        self._seconds = seconds
        self._instance_id = instance_id
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._expired = False

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Run the application, and cancel it when its answer is not there in time.

        It can clean up, or even answer, when it is cancelled. Then the caller gets a 504; when a
        part of the answer has left, the end of the connection says that the rest is missing.
        """
        task = asyncio.current_task()
        assert task is not None
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire, task)
        cancelling = task.cancelling()
        try:
            await app(self.scope, receive, self)
        except asyncio.CancelledError:
            if not self._expired or task.cancelling() > cancelling + 1:
                raise  # by the server, which stops
        finally:
            self._timer.cancel()
            if self.limiter is not None:
                self._leave(ok=False)
            if self.observe is not None and not self._expired:
                self._end()
        if self._expired:
            task.uncancel()
            await self._too_late()

    async def refuse(self) -> None:
        """Answer that there is no time left, without asking the application."""
        await self._give_up("the call's deadline had passed on arrival")

    def _end(self) -> None:
        """Free the background tasks that follow a complete answer of its deadline."""
        self._ended = True
        self.context.end()
        if self._timer is not None:
            self._timer.cancel()
        super()._end()

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._expired = True
        task.cancel()

    async def _too_late(self) -> None:
        limit = f"the call's deadline of {self._seconds:.3g} s has passed"
        scope = self.scope
        if not self.status:
            await self._give_up(limit)
        elif not self._ended:
            self._end()
            log.warning("%s %s: answer broken off: %s", scope["method"], scope["path"], limit)

    async def _give_up(self, why: str) -> None:
        # Named, so that our caller can tell it from a 504 that the application gives.
        pair = (DEADLINE, self._instance_id.encode())
        await answer(self.scope, self, 504, {"detail": why}, [pair])
