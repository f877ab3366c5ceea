"""FastAPI on uvicorn, with the life cycle taken apart so that the runtime can order its steps."""

from __future__ import annotations

import asyncio
import contextlib
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
from meshkit.server.asgi import MeshApp

# Callers drop idle connections after 30 s; keeping them longer here means that a request never
# meets a connection that is just being closed.
KEEP_ALIVE = 75
HEADER_REFRESH = 1.0

log = logging.getLogger("meshkit.server")
# Its messages repeat what StartError says, with a traceback; they are for --debug.
lifespan_log = logging.getLogger("meshkit.server.lifespan")


class DeferredLifespan(LifespanOn):
    """The application's lifespan, run when the runtime says so.

    uvicorn runs it before it accepts connections and after it has closed them: too early for
    the real port to be known, and too late to leave the registry.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.logger = lifespan_log
        self.failure = ""

    async def startup(self) -> None:
        """Do nothing at uvicorn's moment."""

    async def shutdown(self) -> None:
        """Do nothing at uvicorn's moment."""

    async def begin(self) -> None:
        """Run the application's start-up. Raises StartError when it fails."""
        await super().startup()
        if self.startup_failed:
            raise StartError(
                f"the application's lifespan failed: {self.failure or 'no reason given'}"
            )

    async def end(self) -> None:
        """Run the application's shutdown, if its start-up was run and had one."""
        if self.startup_event.is_set() and not self.startup_failed:
            await super().shutdown()

    async def send(self, message: Any) -> None:
        """Note why the start-up failed: the last line of the traceback that Starlette sends."""
        if message["type"] == "lifespan.startup.failed":
            self.failure = str(message.get("message", "")).strip().rpartition("\n")[2]
        await super().send(message)


class HttpServer(uvicorn.Server):
    """One bound socket, served in steps: start, identify, drain, stop."""

    def __init__(self, app: MeshApp, sock: socket.socket, routes: Iterable[object]) -> None:
        config = uvicorn.Config(
            cast("Any", app),
            interface="asgi3",
            lifespan="auto",
            ws=cast("Any", _websocket_protocol(routes)),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        super().__init__(config)
        self._app = app
        self._socket = sock
        self._ticker: asyncio.Task[None] | None = None
        self.port: int = sock.getsockname()[1]

    async def start(self) -> None:
        """Accept connections. Health is answered, everything else is 503 until the doors open."""
        self.config.load()
        self.lifespan: DeferredLifespan = DeferredLifespan(self.config)
        await self.startup(sockets=[self._socket])
        self._ticker = asyncio.create_task(self._tick(), name="meshkit-http-tick")

    async def identify(self, service: str, instance_id: str) -> None:
        """Name ourselves on every answer from now on, and refuse what is meant for others."""
        self._app.instance_id = instance_id.encode()
        await self._add_headers(
            (identity.SERVICE.encode(), service.encode()),
            (identity.INSTANCE.encode(), instance_id.encode()),
        )

    async def drain(self) -> None:
        """Go on answering, and tell each caller to move on."""
        await self._add_headers((identity.DRAINING.encode(), b"1"), (b"connection", b"close"))

    async def stop(self, *, grace: float) -> None:
        """Close the listener, wait up to ``grace`` seconds for calls in flight, cancel the rest."""
        self.config.timeout_graceful_shutdown = cast("Any", max(0.0, grace))
        if self.started:
            await self.shutdown(sockets=[self._socket])
        self._socket.close()
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker

    async def _tick(self) -> None:
        """Keep the Date header current; uvicorn's own loop would wake ten times a second."""
        while True:
            await self.on_tick(0)
            await asyncio.sleep(HEADER_REFRESH)

    async def _add_headers(self, *headers: tuple[bytes, bytes]) -> None:
        self.config.encoded_headers.extend(headers)
        await self.on_tick(0)


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
