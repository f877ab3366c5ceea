"""One HTTP request in the application's hands: all that we do at its answer, in one place."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from meshkit import propagation
from meshkit.context import CallContext
from meshkit.server.answer import ASGIApp, Receive, Scope, Send
from meshkit.server.shedding import Limiter

REQUEST_ID = propagation.REQUEST.encode()

# Of a request's scope: uvicorn's side of it, a :class:`~meshkit.server.http_cycle.Cycle`.
CYCLE = "meshkit.cycle"

# Told of each request when its answer is complete, or given up: its scope, the status (0 when
# there was no answer) and the seconds since it came.
Observe = Callable[[Scope, int, float], None]


class HttpCall:
    """What the server tells of an answer: that it begins, that it is complete, or that it is over.

    Frees the request's place when the answer begins, so that streams are no slow requests; and
    tells who observes when it has ended.

    Args:
        scope: of the request.
        context: of the call.
        came: when the request came, on ``time.perf_counter()``.

    Attributes:
        limiter: where the request holds a place; None when it does not, or no more.
        observe: who is told of the end; None when nobody is, or has been.
        status: of the answer, 0 until it begins.
    """

    __slots__ = ("came", "context", "limiter", "observe", "scope", "status")

    def __init__(self, scope: Scope, context: CallContext, came: float) -> None:
        self.scope = scope
        self.context = context
        self.came = came
        self.limiter: Limiter | None = None
        self.observe: Observe | None = None
        self.status = 0

    def run(self, app: ASGIApp, receive: Receive, send: Send) -> Awaitable[None]:
        """Let the application answer."""
        return app(self.scope, receive, send)

    def begin(self, status: int) -> None:
        """Note the beginning of the answer."""
        self.status = status
        if self.limiter is not None:
            self._leave(ok=status < 400)

    def end(self) -> None:
        """Tell of the end, once: the answer is complete."""
        if self.observe is not None:
            observe, self.observe = self.observe, None
            observe(self.scope, self.status, time.perf_counter() - self.came)

    def close(self) -> None:
        """End what did not come to an end by itself."""
        if self.limiter is not None:
            self._leave(ok=False)
        if self.observe is not None:
            self.end()

    def _leave(self, *, ok: bool) -> None:
        """Free its place; latencies are compared with those of the same endpoint."""
        limiter, self.limiter = self.limiter, None
        if limiter is not None:
            limiter.release(self.came, self.scope.get("endpoint"), ok=ok)
