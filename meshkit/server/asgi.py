"""The one ASGI layer in front of FastAPI: health, identity, and whether the doors are open."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from meshkit import identity
from meshkit.server.headers import DefaultHeaders
from meshkit.server.health import Health, Phase

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LIVE = "/health/live"
READY = "/health/ready"
TARGET = identity.TARGET.encode()


class MeshApp:
    """Answers health questions and refuses misdirected requests before FastAPI sees them.

    The identity headers on answers are not added here: uvicorn writes them with its own default
    headers, which costs nothing per call.
    """

    def __init__(
        self, app: ASGIApp, health: Health, describe: Callable[[], dict[str, Any]]
    ) -> None:
        self._app = app
        self._health = health
        self._describe = describe
        self._paths = {LIVE: self._live, READY: self._ready}
        self.instance_id = b""
        self.headers = DefaultHeaders()
        self.lifespan_error: Exception | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Route one ASGI connection; not a coroutine itself, to save a frame per call."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        self.headers.refresh()
        if scope["type"] == "http" and (health := self._paths.get(scope["path"])):
            return health(scope, send)
        for name, value in scope["headers"]:
            if name == TARGET and value != self.instance_id:
                return self._misdirected(scope, send, value)
        if self._health.phase is Phase.STARTING:
            return self._starting(scope, send)
        return self._app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application's lifespan, and note what it raises: uvicorn tells only that."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            self.lifespan_error = error
            raise

    async def _live(self, scope: Scope, send: Send) -> None:
        await answer(scope, send, 200, {"status": "live"})

    async def _ready(self, scope: Scope, send: Send) -> None:
        await self._health.check()
        health = self._health
        status = health.phase.value if health.phase is not Phase.SERVING else "not ready"
        body = {
            "status": "ready" if health.ready else status,
            **self._describe(),
            "checks": {result.name: result.to_dict() for result in health.results},
        }
        await answer(scope, send, 200 if health.ready else 503, body)

    async def _misdirected(self, scope: Scope, send: Send, wanted: bytes) -> None:
        detail = f"this is {self.instance_id.decode()}, not {wanted.decode('latin-1')}"
        await answer(scope, send, 421, {"detail": detail})

    async def _starting(self, scope: Scope, send: Send) -> None:
        await answer(scope, send, 503, {"detail": "starting"}, [(b"retry-after", b"1")])


async def answer(
    scope: Scope,
    send: Send,
    status: int,
    body: dict[str, Any],
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send one small JSON answer; a WebSocket is refused with the status instead."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": str(body.get("detail", ""))})
        return
    content = json.dumps(body, separators=(",", ":")).encode()
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
            *headers,
        ],
    }
    await send(start)
    await send(
        {"type": "http.response.body", "body": content if scope["method"] != "HEAD" else b""}
    )
