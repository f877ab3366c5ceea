"""The ASGI types, and how we answer ourselves where the application is not asked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer(
    scope: Scope,
    send: Send,
    status: int,
    body: dict[str, Any],
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send one small JSON answer, also to those who want a WebSocket."""
    kind = "http"
    if scope["type"] == "websocket":
        kind = "websocket.http"
    if kind != "http" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1013, "reason": str(body.get("detail", ""))})
        return
    content = json.dumps(body, separators=(",", ":")).encode()
    pairs = [(b"content-type", b"application/json"), *headers]
    await answer_with(scope, send, status, content, pairs, kind=kind)


async def answer_with(
    scope: Scope,
    send: Send,
    status: int,
    content: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    kind: str = "http",
) -> None:
    """Send one small answer of any content type, which is among the headers."""
    start = {
        "type": f"{kind}.response.start",
        "status": status,
        "headers": [
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
            *headers,
        ],
    }
    await send(start)
    bodiless = scope.get("method") == "HEAD"
    await send({"type": f"{kind}.response.body", "body": b"" if bodiless else content})
