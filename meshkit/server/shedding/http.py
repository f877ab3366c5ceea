"""Shedding of HTTP requests: which are let in without being counted, and how one is refused."""

from __future__ import annotations

from collections.abc import Mapping

from meshkit import identity
from meshkit.server.answer import Scope, Send

LARGE = 65536  # bytes; a larger body takes as long as the caller takes to send it
BODIES = frozenset({"POST", "PUT", "PATCH"})
HTTP_RESPONSE = "websocket.http.response"
DETAIL = b'{"detail":"overloaded, not handled: call another instance, or try again later"}'


def is_upload(method: str, found: Mapping[str, str]) -> bool:
    """Whether the request takes as long as its caller sends, and so tells nothing of us.

    Args:
        method: GET and so on.
        found: the headers that tell of a body.
    """
    if method not in BODIES:
        return False
    if "transfer-encoding" in found:
        return True  # nobody knows yet
    length = found.get("content-length", "0")
    return len(length) > 10 or int(length) > LARGE  # digits, as the parser has checked


async def refuse(scope: Scope, send: Send, instance_id: str) -> None:
    """Tell the caller, who may also want a WebSocket, that the request was not handled."""
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
        (identity.SHED.encode(), instance_id.encode()),
    ]
    await send({"type": f"{prefix}http.response.start", "status": 503, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": DETAIL})
