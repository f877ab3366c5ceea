"""A request with a deadline: cancelled, and answered with 504, when its answer is not there."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from meshkit import propagation
from meshkit.context import CallContext
from meshkit.server.alarm import Alarm
from meshkit.server.answer import ASGIApp, Receive, Scope, Send, answer
from meshkit.server.http_call import HttpCall

DEADLINE = propagation.DEADLINE.encode()

log = logging.getLogger("meshkit.server")


class TimedCall(HttpCall):
    """An HttpCall that lasts until its deadline at most.

    Args:
        scope: of the request.
        context: of the call; the end of the answer lifts its deadline.
        came: when the request came, on ``time.perf_counter()``.
        instance_id: our own.
        alarm: of its connection.

    Attributes:
        seconds: that were left when it was made.
    """

    __slots__ = ("_alarm", "_ended", "_expired", "_instance_id", "_task", "seconds")

    def __init__(
        self, scope: Scope, context: CallContext, came: float, instance_id: str, alarm: Alarm
    ) -> None:
        super().__init__(scope, context, came)
        assert context.deadline is not None
        context.deadline -= time.perf_counter() - came  # a busy loop takes its time
        self.seconds = context.deadline - time.monotonic()
        self._instance_id = instance_id
        self._alarm = alarm
        self._task: asyncio.Task[Any] | None = None
        self._ended = False
        self._expired = False

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Run the application, and cancel it when its answer is not there in time.

        It can clean up, or even answer, when it is cancelled. Then the caller gets a 504; when a
        part of the answer has left, the end of the connection says that the rest is missing.
        """
        task = self._task = asyncio.current_task()
        assert task is not None
        assert self.context.deadline is not None
        self._alarm.set(self.context.deadline, self)
        cancelling = task.cancelling()
        try:
            await app(self.scope, receive, send)
        except asyncio.CancelledError:
            if not self._expired or task.cancelling() > cancelling + 1:
                raise  # by the server, which stops
        finally:
            self._alarm.forget(self)
        if self._expired:
            task.uncancel()
            await self._too_late(send)

    async def refuse(self, send: Send) -> None:
        """Answer that there is no time left, without asking the application."""
        await self._give_up(send, "the call's deadline had passed on arrival")

    def end(self) -> None:
        """Free the background tasks that follow a complete answer of its deadline."""
        self._ended = True
        self.context.end()
        self._alarm.forget(self)
        super().end()

    def overdue(self) -> None:
        """Cancel the application: there is no time left."""
        assert self._task is not None
        self._expired = True
        self._task.cancel()

    async def _too_late(self, send: Send) -> None:
        limit = f"the call's deadline of {self.seconds:.3g} s has passed"
        scope = self.scope
        if not self.status:
            await self._give_up(send, limit)
        elif not self._ended:
            self.end()
            log.warning("%s %s: answer broken off: %s", scope["method"], scope["path"], limit)

    async def _give_up(self, send: Send, why: str) -> None:
        # Named, so that our caller can tell it from a 504 that the application gives.
        pair = (DEADLINE, self._instance_id.encode())
        await answer(self.scope, send, 504, {"detail": why}, [pair])
