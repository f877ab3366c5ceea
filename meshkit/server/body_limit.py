"""No more of a request's body than we are willing to read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from starlette.exceptions import HTTPException

from meshkit.server.answer import ASGIApp, Receive, Scope, Send, answer

# A caller that is still sending does not see an answer when the connection is closed at once
# (TCP resets it), so that what comes is read and dropped for a while, as nginx lingers.
LINGER = 5.0
CLOSE = (b"connection", b"close")


class BodyTooLarge(HTTPException):
    """Raised from ``receive`` in the application, which answers 413 by itself."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, too_large(limit), {"connection": "close"})


class BodyLimit:
    """Answers 413 to a body of more than ``limit`` bytes.

    One whose length is announced is not read at all; one that comes in chunks is counted while
    the application reads it, so that uploads are not kept in memory here. To be called only for
    requests that have a body: others need no look.

    Args:
        app: what is behind.
        limit: bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """See the class."""
        for name, value in scope["headers"]:
            if name == b"content-length":
                # Digits, as the parser has checked.
                if int(value) > self._limit:
                    return self._refuse(scope, receive, send)
                break
            if name == b"transfer-encoding":
                return self._count(scope, receive, send)
        return self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def lingering(message: Any) -> None:
            await _send_and_linger(message, receive, send)

        await answer(scope, lingering, 413, {"detail": too_large(self._limit)}, [CLOSE])

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = self._limit
        started = False

        async def counting() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise BodyTooLarge(self._limit)
            return message

        async def watching(message: Any) -> None:
            nonlocal started
            started = True
            if left < 0:
                await _send_and_linger(message, receive, send)
            else:
                await send(message)

        try:
            await self._app(scope, counting, watching)
        except BodyTooLarge:
            if started:
                raise
            await self._refuse(scope, receive, send)


def too_large(limit: int) -> str:
    """Say what is allowed, and who allows it."""
    return f"the body is larger than {limit} bytes, the limit of this service (max_body)"


async def _send_and_linger(message: Any, receive: Receive, send: Send) -> None:
    """Send it; after the last one, let the caller finish sending before the connection closes."""
    if message["type"] != "http.response.body" or message.get("more_body"):
        await send(message)
        return
    await send({**message, "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b""})
