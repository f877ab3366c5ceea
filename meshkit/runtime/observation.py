"""What a service shows of itself while it runs: which pages, on which port, and what they read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from meshkit.server.answer import Receive, Scope, Send, answer
from meshkit.server.asgi import MeshApp, Page
from meshkit.server.bind import bind
from meshkit.server.health import Health
from meshkit.server.shedding import Limiter
from meshkit.settings import MeshSettings
from meshkit.telemetry.counts import GrpcCounts, HttpCounts
from meshkit.telemetry.pages import METRICS, pages, wants_debug, wants_metrics
from meshkit.telemetry.state import Sources

if TYPE_CHECKING:
    from meshkit.server.http import HttpServer

log = logging.getLogger("meshkit")


class Observation:
    """The pages of one service, as its settings have them.

    Args:
        settings: the service's.
        sources: what the pages read; the counters are added here.
        taken: paths of the application.

    Attributes:
        http: counts requests; None when nobody could read it.
        grpc: counts calls; likewise.

    Raises:
        MissingExtraError: metrics are on, and their library is not installed.
    """

    def __init__(self, settings: MeshSettings, sources: Sources, taken: Collection[str]) -> None:
        self._settings = settings
        self._sources = sources
        own_port = settings.metrics_port is not None
        metrics = wants_metrics(settings, () if own_port else taken)
        if not metrics and settings.metrics == "auto" and METRICS in taken:
            log.info("%s is the application's own, so meshkit's metrics are off", METRICS)
        self._pages = pages(sources, metrics=metrics, debug=wants_debug(settings))
        self._server: HttpServer | None = None
        self.http = HttpCounts() if metrics else None
        self.grpc = GrpcCounts() if metrics else None

    @property
    def pages(self) -> dict[str, Page]:
        """Those for the service's own HTTP port."""
        return {} if self._settings.metrics_port is not None else self._pages

    def limit(self, transport: str, limiter: Limiter | None) -> Limiter | None:
        """Show a limiter, and return it."""
        if limiter is not None:
            self._sources.limiters[transport] = limiter
        return limiter

    def serves_http(self, server: HttpServer, app: MeshApp) -> None:
        """Show what this server is asked, and count it."""
        if self.http is not None:
            app.observe = self.http.ended
        # Whoever reads it on this port is a request as well.
        own = 1 if self.pages else 0
        self._sources.http = self.http
        self._sources.http_in_flight = lambda: max(server.in_flight - own, 0)

    def serves_grpc(self) -> None:
        """Show what the gRPC server is asked."""
        self._sources.grpc = self.grpc

    def bind(self, health: Health, describe: Callable[[], dict[str, Any]]) -> None:
        """Take the port of its own, if it has one."""
        settings = self._settings
        if settings.metrics_port is None:
            return
        from meshkit.server.http import HttpServer  # noqa: PLC0415 - gRPC alone needs no uvicorn

        sock = bind(settings.host, settings.metrics_port, flag="MESHKIT_METRICS_PORT")
        self._server = HttpServer(MeshApp(nothing, health, describe, pages=self._pages), sock, ())

    @property
    def port(self) -> int | None:
        """The port of its own."""
        return None if self._server is None else self._server.port

    async def start(self) -> None:
        """Answer on the port of its own, from before the service is ready until it has ended."""
        if self._server is not None:
            await self._server.start()
            log.info("metrics and health are on port %d", self._server.port)

    async def aclose(self) -> None:
        """Close that port. Closing twice is safe."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace=0.0)


async def nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer for an application that is not there."""
    await answer(scope, send, 404, {"detail": "here are only metrics and health"})
