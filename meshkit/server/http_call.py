"""One HTTP request in the application's hands: all that we do at its answer, in one place."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from meshkit import propagation
from meshkit.context import CallContext
from meshkit.server.answer import ASGIApp, Message, Receive, Scope, Send
from meshkit.server.shedding import Limiter

REQUEST_ID = propagation.REQUEST.encode()

# Told of each request when its answer is complete, or given up: its scope, the status (0 when
# there was no answer) and the seconds since it came.
Observe = Callable[[Scope, int, float], None]


class HttpCall:
    """What the application gets as its ``send``: one object for each request, one call a message.

    Names the request's id with the answer, unless the application gives its own; frees the
    request's place when the answer begins, so that streams are no slow requests; and tells who
    observes when it has ended.

    Args:
        scope: of the request.
        send: uvicorn's, or what stands before it.
        context: of the call.

    Attributes:
        came: when the request came, on ``time.perf_counter()``.
        limiter: where the request holds a place; None when it does not, or no more.
        observe: who is told of the end; None when nobody is, or has been.
        status: of the answer, 0 until it begins.
    """

    __slots__ = ("_send", "came", "context", "limiter", "observe", "scope", "status")

    def __init__(self, scope: Scope, send: Send, context: CallContext) -> None:
        self.scope = scope
        self.context = context
        self.came = 0.0
        self.limiter: Limiter | None = None
        self.observe: Observe | None = None
        self.status = 0
        self._send = send

    def __call__(self, message: Message) -> Awaitable[None]:
        """Pass on a part of the answer; not a coroutine itself, to save a frame."""
        if message["type"] == "http.response.start":
            self._begin(message)
        elif not message.get("more_body"):
            self._end()
        return self._send(message)

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Let the application answer; whatever it does, the request holds no place afterwards."""
        try:
            await app(self.scope, receive, self)
        finally:
            if self.limiter is not None:
                self._leave(ok=False)
            if self.observe is not None:
                self._end()

    def _begin(self, message: Message) -> None:
        self.status = message["status"]
        if self.limiter is not None:
            self._leave(ok=self.status < 400)
        headers = message.get("headers", ())
        for name, _ in headers:
            if name == REQUEST_ID:
                return
        message["headers"] = [*headers, (REQUEST_ID, self.context.request_id.encode())]

    def _leave(self, *, ok: bool) -> None:
        """Free its place; latencies are compared with those of the same endpoint."""
        limiter, self.limiter = self.limiter, None
        if limiter is not None:
            limiter.release(self.came, self.scope.get("endpoint"), ok=ok)

    def _end(self) -> None:
        """Tell of the end, once."""
        observe, self.observe = self.observe, None
        if observe is not None:
            observe(self.scope, self.status, time.perf_counter() - self.came)
