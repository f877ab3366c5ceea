"""Shedding of HTTP requests: refused with 503 before FastAPI sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshkit import identity
from meshkit.server.answer import ASGIApp, Message, Receive, Scope, Send
from meshkit.server.shedding.limiter import Limiter

# Set by our protocol: when the request's head had been read, as time.perf_counter() tells it.
ARRIVED = "meshkit.arrived"
LARGE = 65536  # bytes; a larger body takes as long as the caller takes to send it
BODIES = frozenset({"POST", "PUT", "PATCH"})
HTTP_RESPONSE = "websocket.http.response"
DETAIL = b'{"detail":"overloaded, not handled: call another instance, or try again later"}'


class Shedding:
    """Lets in as many HTTP requests at once as the limiter allows.

    A request counts until its answer begins, so that streams are no slow requests. One with a
    large body, and a WebSocket, is let in or not, but does not count: its time is the caller's.

    Args:
        app: what is behind.
        limiter: the loop's own.
        instance_id: returns ours, for the refusal.
    """

    def __init__(self, app: ASGIApp, limiter: Limiter, instance_id: Callable[[], str]) -> None:
        self._app = app
        self._limiter = limiter
        self._instance_id = instance_id

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let one ASGI connection in, or refuse it."""
        if scope["type"] == "lifespan":
            return self._app(scope, receive, send)
        came = self._limiter.acquire(scope.get(ARRIVED))
        if came is None:
            return self._refuse(scope, send)
        if scope["type"] == "websocket" or (scope["method"] in BODIES and _is_large(scope)):
            self._limiter.forget()
            return self._app(scope, receive, send)
        return self._count(Admitted(self._limiter, scope, send, came), receive)

    async def _count(self, request: Admitted, receive: Receive) -> None:
        try:
            await self._app(request.scope, receive, request.send)
        finally:
            if request.open:
                request.end(ok=False)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        prefix = ""
        if scope["type"] == "websocket":
            if HTTP_RESPONSE not in scope.get("extensions", ()):
                await send({"type": "websocket.close", "code": 1013, "reason": "overloaded"})
                return
            prefix = "websocket."
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(DETAIL)).encode()),
            (b"retry-after", b"1"),
            (identity.SHED.encode(), self._instance_id().encode()),
        ]
        await send({"type": f"{prefix}http.response.start", "status": 503, "headers": headers})
        await send({"type": f"{prefix}http.response.body", "body": DETAIL})


class Admitted:
    """A request that counts until its answer begins."""

    __slots__ = ("_came", "_limiter", "_send", "open", "scope")

    def __init__(self, limiter: Limiter, scope: Scope, send: Send, came: float) -> None:
        self.scope = scope
        self.open = True
        self._limiter = limiter
        self._send = send
        self._came = came

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; not a coroutine itself, to save a frame."""
        if self.open:
            self.end(ok=message.get("status", 500) < 400)
        return self._send(message)

    def end(self, *, ok: bool) -> None:
        """Stop counting; requests are compared with those of the same endpoint."""
        self.open = False
        self._limiter.release(self._came, self.scope.get("endpoint"), ok=ok)


def _is_large(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return len(value) > 10 or int(value) > LARGE  # digits, as the parser has checked
        if name == b"transfer-encoding":
            return True  # nobody knows yet
    return False
