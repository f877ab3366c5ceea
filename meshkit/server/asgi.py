"""The one ASGI layer in front of FastAPI: health, identity, limits, and what the call brought."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from meshkit import identity, propagation
from meshkit.context import CallContext, enter
from meshkit.server.answer import ASGIApp, Receive, Scope, Send, answer
from meshkit.server.body_limit import BodyLimit
from meshkit.server.fastapi_telemetry import KEY, SDK, has_vendor
from meshkit.server.headers import DefaultHeaders
from meshkit.server.health import Health, Phase
from meshkit.server.http_call import CYCLE, HttpCall, Observe
from meshkit.server.shedding import Limiter
from meshkit.server.shedding.http import is_upload, refuse
from meshkit.server.timed_call import TimedCall

if TYPE_CHECKING:
    from meshkit.server.http_cycle import Cycle

Page = Callable[[Scope, Send], Awaitable[None]]

LIVE = "/health/live"
READY = "/health/ready"
STARTING = Phase.STARTING  # Python 3.11 takes long to find a member of an enumeration
LENGTH, CHUNKED = "content-length", "transfer-encoding"
# What is read of a request's headers; the parser has their names in lower case.
HEADERS = {name.encode(): name for name in (identity.TARGET, LENGTH, CHUNKED, *propagation.NAMES)}


def read(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
    """Return those of ``HEADERS`` that are there, several of one name joined by commas."""
    found: dict[str, str] = {}
    for name, value in headers:
        if (key := HEADERS.get(name)) is not None:
            text = value.decode("latin-1")
            found[key] = f"{found[key]},{text}" if key in found else text
    return found


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
        limiter: how many requests at once are let in; None for no limit.
        max_body: bytes of a request's body; 0 for no limit.
        pages: further paths that are answered here, never shed or counted.

    Attributes:
        observe: told of the end of each request that is handled or shed.
    """

    def __init__(
        self,
        app: ASGIApp,
        health: Health,
        describe: Callable[[], dict[str, Any]],
        *,
        baggage: Collection[str] = (),
        limiter: Limiter | None = None,
        max_body: int = 0,
        pages: Mapping[str, Page] | None = None,
    ) -> None:
        self._app = app
        self._with_body = BodyLimit(app, max_body) if max_body else app
        self._limiter = limiter
        self._health = health
        self._describe = describe
        self._baggage = frozenset(baggage)
        self._vendor = has_vendor()
        self._paths: dict[str, Page] = {LIVE: self._live, READY: self._ready, **(pages or {})}
        self.instance_id = ""
        self.headers = DefaultHeaders()
        self.lifespan_error: Exception | None = None
        self.observe: Observe | None = None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Route one ASGI connection; not a coroutine itself, to save a frame per call."""
        if scope["type"] == "lifespan":
            return self._lifespan(scope, receive, send)
        self.headers.refresh()
        # Taken out, for the two would keep each other alive.
        cycle: Cycle | None = scope.pop(CYCLE, None)
        if cycle is not None and (page := self._paths.get(scope["path"])):
            return page(scope, send)
        found = read(scope["headers"])
        if found and found.get(identity.TARGET, self.instance_id) != self.instance_id:
            return self._misdirected(scope, send, found[identity.TARGET])
        if self._health.phase is STARTING:
            return self._starting(scope, send)
        if not self._vendor and SDK not in sys.modules:
            scope[KEY] = None
        context = propagation.incoming(found, self._baggage, scope["headers"])
        enter(context)  # of the task that uvicorn has made for this request
        if cycle is None:
            return self._talk(context, scope, receive, send)
        if context.deadline is None:
            call = cycle.call = HttpCall(scope, context, cycle.came)
        else:
            call = timed = cycle.call = TimedCall(
                scope, context, cycle.came, self.instance_id, cycle.alarm
            )
            if timed.seconds <= 0:
                return timed.refuse(send)
        if not self._admit(call, found):
            return refuse(scope, send, self.instance_id)
        app = self._with_body if found and (LENGTH in found or CHUNKED in found) else self._app
        return call.run(app, receive, send)

    def _admit(self, call: HttpCall, found: Mapping[str, str]) -> bool:
        """Let a request in, if there is room; it is observed in either case."""
        call.observe = self.observe
        if self._limiter is None:
            return True
        if self._limiter.acquire(call.came) is None:
            return False
        if found and is_upload(call.scope["method"], found):
            self._limiter.forget()
        else:
            call.limiter = self._limiter
        return True

    def _talk(
        self, context: CallContext, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Let a WebSocket in, if there is room; it does not count, its time is the caller's."""
        context.end()
        if self._limiter is not None:
            if self._limiter.acquire() is None:
                return refuse(scope, send, self.instance_id)
            self._limiter.forget()
        return self._app(scope, receive, send)

    @property
    def paths(self) -> Collection[str]:
        """What is answered here."""
        return self._paths.keys()

    def wrap(self, layer: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put a layer in front of the application; for requests that come from now on."""
        self._app, self._with_body = layer(self._app), layer(self._with_body)

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
