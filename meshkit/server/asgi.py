"""The one ASGI layer in front of FastAPI: health, identity, and whether the doors are open."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from meshkit import identity, propagation
from meshkit.context import enter
from meshkit.server.answer import ASGIApp, Receive, Scope, Send, answer
from meshkit.server.headers import DefaultHeaders
from meshkit.server.health import Health, Phase
from meshkit.server.http_call import HttpCall, naming
from meshkit.server.shedding.http import ARRIVED

LIVE = "/health/live"
READY = "/health/ready"
# What is read of a request's headers.
HEADERS = {name.encode(): name for name in (identity.TARGET, *propagation.NAMES)}


class MeshApp:
    """Answers health questions and refuses misdirected requests before FastAPI sees them.

    All others are handled in the context that they brought along, and within its deadline. Not so
    WebSockets, which have no deadline: they are there to last.

    The identity headers on answers are not added here: uvicorn writes them with its own default
    headers, which costs nothing per call.

    Args:
        app: the application.
        health: answered on two paths of ours.
        describe: what a readiness answer says beside the checks.
        baggage: keys of baggage that travel on.
    """

    def __init__(
        self,
        app: ASGIApp,
        health: Health,
        describe: Callable[[], dict[str, Any]],
        *,
        baggage: Collection[str] = (),
    ) -> None:
        self._app = app
        self._health = health
        self._describe = describe
        self._baggage = frozenset(baggage)
        self._paths = {LIVE: self._live, READY: self._ready}
        self.instance_id = ""
        self.headers = DefaultHeaders()
        self.lifespan_error: Exception | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Route one ASGI connection; not a coroutine itself, to save a frame per call."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        self.headers.refresh()
        if scope["type"] == "http" and (health := self._paths.get(scope["path"])):
            return health(scope, send)
        found: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in HEADERS:
                key, text = HEADERS[name], value.decode("latin-1")
                found[key] = f"{found[key]},{text}" if key in found else text
        if identity.TARGET in found and found[identity.TARGET] != self.instance_id:
            return self._misdirected(scope, send, found[identity.TARGET])
        if self._health.phase is Phase.STARTING:
            return self._starting(scope, send)
        return self._handle(found, scope, receive, send)

    def _handle(
        self, found: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Let the application answer, in the context that the headers tell of."""
        context = propagation.incoming(found, self._baggage, scope["headers"])
        enter(context)  # of the task that uvicorn has made for this request
        if scope["type"] != "http":
            context.end()
            return self._app(scope, receive, send)
        send = naming(send, context.request_id)
        if context.deadline is None:
            return self._app(scope, receive, send)
        if (arrived := scope.get(ARRIVED)) is not None:
            context.deadline -= time.perf_counter() - arrived  # a busy loop takes its time
        left = context.deadline - time.monotonic()
        return HttpCall(context, send, self.instance_id).within(left, self._app, scope, receive)

    def wrap(self, layer: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put a layer in front of the application; for requests that come from now on."""
        self._app = layer(self._app)

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

    async def _misdirected(self, scope: Scope, send: Send, wanted: str) -> None:
        detail = f"this is {self.instance_id}, not {wanted}"
        await answer(scope, send, 421, {"detail": detail})

    async def _starting(self, scope: Scope, send: Send) -> None:
        await answer(scope, send, 503, {"detail": "starting"}, [(b"retry-after", b"1")])
