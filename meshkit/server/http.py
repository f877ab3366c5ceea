"""FastAPI on uvicorn, with the life cycle taken apart so that the runtime can order its steps."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import socket
from collections.abc import Iterable
from typing import Any, cast

import uvicorn
from starlette.routing import Mount, WebSocketRoute
from uvicorn.lifespan.on import LifespanOn

from meshkit import identity
from meshkit.errors import MissingExtraError, StartError
from meshkit.places import place
from meshkit.reasons import reason
from meshkit.server.access_log import HttpAccessLog
from meshkit.server.asgi import MeshApp
from meshkit.server.backlog import Backlog
from meshkit.server.forwarded import Forwarded
from meshkit.server.headers import CLOSE
from meshkit.server.http_protocol import HttpProtocol
from meshkit.server.tracing import Traces

# Callers drop idle connections after 30 s; keeping them longer here means that a request never
# meets a connection that is just being closed.
KEEP_ALIVE = 75
LEAST_GRACE = 0.05

log = logging.getLogger("meshkit.server")
# Its messages repeat what StartError says, with a traceback; they are for --debug.
lifespan_log = logging.getLogger("meshkit.server.lifespan")


def not_cancelled(record: logging.LogRecord) -> bool:
    """Keep uvicorn from showing a traceback of a request that we have cancelled at the limit.

    It says itself how many there were.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


class DeferredLifespan(LifespanOn):
    """The application's lifespan, run when the runtime says so.

    uvicorn runs it before it accepts connections and after it has closed them: too early for
    the real port to be known, and too late to leave the registry.
    """

    def __init__(self, config: uvicorn.Config, app: MeshApp) -> None:
        super().__init__(config)
        self.logger = lifespan_log
        self._app = app
        self._message = ""

    async def startup(self) -> None:
        """Do nothing at uvicorn's moment."""

    async def shutdown(self) -> None:
        """Do nothing at uvicorn's moment."""

    async def begin(self) -> None:
        """Run the application's start-up. Raises StartError when it fails."""
        await super().startup()
        if self.startup_failed:
            error = self._app.lifespan_error
            why = reason(error) if error else " ".join(self._message.split()) or "no reason given"
            where = place(error) if error else ""
            raise StartError(f"the application's lifespan failed: {why}{where}") from error

    async def end(self) -> None:
        """Run the application's shutdown, if its start-up was run and had one."""
        if self.startup_event.is_set() and not self.startup_failed:
            await super().shutdown()

    async def send(self, message: Any) -> None:
        """Note why the start-up failed, for an application that says so without raising."""
        if message["type"] == "lifespan.startup.failed":
            self._message = str(message.get("message", ""))
        await super().send(message)


class HttpServer(uvicorn.Server):
    """One bound socket, served in steps: start, identify, drain, stop."""

    def __init__(
        self,
        app: MeshApp,
        sock: socket.socket,
        routes: Iterable[object],
        *,
        access_log: bool = False,
    ) -> None:
        behind = HttpAccessLog(app, app.paths) if access_log else app
        config = uvicorn.Config(
            cast("Any", behind),
            interface="asgi3",
            lifespan="auto",
            ws=cast("Any", _websocket_protocol(routes)),
            http=cast("Any", functools.partial(HttpProtocol, backlog=Backlog(sock))),
            log_config=None,
            access_log=False,  # ours is cheaper
            server_header=False,
            proxy_headers=False,  # likewise
            timeout_keep_alive=KEEP_ALIVE,
        )
        config.app = cast("Any", Forwarded(behind, config.forwarded_allow_ips))
        super().__init__(config)
        self._app = app
        self._socket = sock
        self.port: int = sock.getsockname()[1]

    async def start(self) -> None:
        """Accept connections. Health is answered, everything else is 503 until the doors open."""
        self.config.load()
        logging.getLogger("uvicorn.error").addFilter(not_cancelled)
        self.lifespan: DeferredLifespan = DeferredLifespan(self.config, self._app)
        self.server_state.default_headers = self._app.headers
        await self.startup(sockets=[self._socket])

    @property
    def calls(self) -> int:
        """How many requests have come so far."""
        return self.server_state.total_requests

    @property
    def in_flight(self) -> int:
        """How many requests are being handled, those for our own pages included."""
        return len(self.server_state.tasks)

    def identify(self, service: str, instance_id: str) -> None:
        """Name ourselves on every answer from now on, and refuse what is meant for others."""
        self._app.instance_id = instance_id
        self._app.headers.add(
            (identity.SERVICE.encode(), service.encode()),
            (identity.INSTANCE.encode(), instance_id.encode()),
        )

    def trace(self, telemetry: Traces) -> None:
        """Let requests be traced from now on."""
        self._app.wrap(telemetry.asgi)

    def drain(self) -> None:
        """Go on answering, and tell each caller to move on."""
        leaving = (identity.DRAINING.encode(), self._app.instance_id.encode())
        self._app.headers.add(leaving, CLOSE)

    async def stop(self, *, grace: float) -> None:
        """Close the listener, wait up to ``grace`` seconds for calls in flight, cancel the rest."""
        # With no time at all uvicorn would complain that it cancels nobody.
        self.config.timeout_graceful_shutdown = cast("Any", max(LEAST_GRACE, grace))
        if self.started:
            await self.shutdown(sockets=[self._socket])
        self._socket.close()


def _websocket_protocol(routes: Iterable[object]) -> str:
    """Choose uvicorn's ``ws``: none unless needed, for importing one costs as much as a start."""
    routes = list(routes)
    declared = any(isinstance(route, WebSocketRoute) for route in routes)
    if not declared and not any(isinstance(route, Mount) for route in routes):
        return "none"
    if importlib.util.find_spec("websockets") or importlib.util.find_spec("wsproto"):
        return "auto"
    if declared:
        raise MissingExtraError("a WebSocket route", "websocket")
    return "none"
