"""One HTTP request in the application's hands: its id on the answer, its deadline kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from meshkit import propagation
from meshkit.context import CallContext
from meshkit.server.answer import ASGIApp, Message, Receive, Scope, Send, answer

REQUEST_ID = propagation.REQUEST.encode()
DEADLINE = propagation.DEADLINE.encode()

log = logging.getLogger("meshkit.server")


def naming(send: Send, request_id: str) -> Send:
    """Return a ``send`` that tells the id with the answer, unless the application gives its own.

    Plain functions, not coroutines: each would be a frame more for every message.
    """

    def named(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            for name, _ in headers:
                if name == REQUEST_ID:
                    break
            else:
                message["headers"] = [*headers, (REQUEST_ID, request_id.encode())]
        return send(message)

    return named


class HttpCall:
    """A request with a deadline, between uvicorn and the application.

    Args:
        context: of the call.
        send: uvicorn's, or what stands before it.
        instance_id: our own.
    """

    # What most calls never change.
    _timer: asyncio.TimerHandle | None = None
    _started = False
    _ended = False
    _expired = False

    def __init__(self, context: CallContext, send: Send, instance_id: str) -> None:
        self._context = context
        self._send = send
        self._instance_id = instance_id

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on a part of the answer."""
        if message["type"] == "http.response.start":
            self._started = True
        elif not message.get("more_body"):
            self._finish()
        return self._send(message)

    def _finish(self) -> None:
        """Free the background tasks that follow a complete answer of its deadline."""
        self._ended = True
        self._context.end()
        if self._timer is not None:
            self._timer.cancel()

    async def within(self, seconds: float, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Run the application, and cancel it when its answer is not there in time.

        It can clean up, or even answer, when it is cancelled. Then the caller gets a 504; when a
        part of the answer has left, the end of the connection says that the rest is missing.
        """
        if seconds <= 0:
            await self._give_up(scope, "the call's deadline had passed on arrival")
            return
        task = asyncio.current_task()
        assert task is not None
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, task)
        cancelling = task.cancelling()
        try:
            await app(scope, receive, self.send)
        except asyncio.CancelledError:
            if not self._expired or task.cancelling() > cancelling + 1:
                raise  # by the server, which stops
        finally:
            self._timer.cancel()
        if self._expired:
            task.uncancel()
            await self._too_late(seconds, scope)

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._expired = True
        task.cancel()

    async def _too_late(self, seconds: float, scope: Scope) -> None:
        limit = f"the call's deadline of {seconds:.3g} s has passed"
        if not self._started:
            await self._give_up(scope, limit)
        elif not self._ended:
            log.warning("%s %s: answer broken off: %s", scope["method"], scope["path"], limit)

    async def _give_up(self, scope: Scope, why: str) -> None:
        # Named, so that our caller can tell it from a 504 that the application gives.
        pair = (DEADLINE, self._instance_id.encode())
        await answer(scope, self.send, 504, {"detail": why}, [pair])
