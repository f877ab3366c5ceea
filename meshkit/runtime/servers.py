"""The service's servers, HTTP and gRPC, as one thing: all take each step of its life."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from meshkit.client.explanation import Explanation
from meshkit.client.mesh import Mesh
from meshkit.model import Endpoint, Instance
from meshkit.runtime.advertise import NO_PORTS
from meshkit.runtime.observation import Observation
from meshkit.server.asgi import MeshApp
from meshkit.server.bind import bind
from meshkit.server.health import Health
from meshkit.server.shedding.settings import new_limiter
from meshkit.service import MeshService, serves_http, servicers
from meshkit.settings import MeshSettings

if TYPE_CHECKING:
    from meshkit.server.grpc import Add, GrpcServer
    from meshkit.server.grpc_thread import GrpcThread
    from meshkit.server.http import HttpServer
    from meshkit.telemetry.otel_spans import Telemetry

QUIET = 0.15  # seconds without a call after which nobody is expected any more

log = logging.getLogger("meshkit")


class Servers:
    """What serves the calls of one service, in steps: bind, start, identify, drain, stop.

    Args:
        service: whose calls are served; it says itself over what.
        settings: the service's.

    Attributes:
        http: None when the service has no routes, and before :meth:`bind`.
        grpc: None when it has no servicers, and before :meth:`bind`.
    """

    def __init__(self, service: MeshService, settings: MeshSettings) -> None:
        self.http: HttpServer | None = None
        self.grpc: GrpcServer | GrpcThread | None = None
        self._thread: GrpcThread | None = None  # the same, if gRPC has a loop of its own
        self._service = service
        self._settings = settings

    @property
    def routes(self) -> Sequence[Any]:
        """The application's routes; none when HTTP is not served."""
        return self._service.app.routes if serves_http(self._service) else ()

    @property
    def ports(self) -> dict[str, int]:
        """The port that each transport is to listen on, 0 for any; also before :meth:`bind`."""
        found = {}
        if serves_http(self._service):
            found["http"] = self._settings.port
        if servicers(type(self._service)):
            found["grpc"] = self._settings.grpc_port
        return found

    @property
    def other_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that gRPC has for itself; None when it has none."""
        return None if self._thread is None else self._thread.loop

    @property
    def calls(self) -> int:
        """How many calls have come so far."""
        return sum(server.calls for server in self._bound)

    @property
    def _bound(self) -> list[HttpServer | GrpcServer | GrpcThread]:
        return [server for server in (self.http, self.grpc) if server is not None]

    def bind(
        self, health: Health, describe: Callable[[], dict[str, Any]], seen: Observation
    ) -> None:
        """Take the ports; nobody is served yet.

        Args:
            health: what the health routes answer.
            describe: what a readiness answer says beside the checks.
            seen: learns of the calls.

        Raises:
            BindError: a port is taken, or the host is not one of this machine.
            MissingExtraError: the service has a WebSocket route, and no library for it is there.
        """
        if serves_http(self._service):
            self._bind_http(health, describe, seen)
        if adders := servicers(type(self._service)):
            self._bind_grpc(adders, seen)

    def _bind_http(
        self, health: Health, describe: Callable[[], dict[str, Any]], seen: Observation
    ) -> None:
        from meshkit.server.http import HttpServer  # noqa: PLC0415 - gRPC alone needs no uvicorn

        settings, routes = self._settings, self.routes
        app = MeshApp(
            self._service.app,
            health,
            describe,
            baggage=settings.baggage,
            limiter=seen.limit("http", new_limiter(settings)),
            max_body=settings.max_body,
            pages=seen.pages,
        )
        sock = bind(settings.host, settings.port)
        self.http = HttpServer(app, sock, routes, access_log=settings.access_log)
        seen.serves_http(self.http, app)
        warn_of_shadows(routes, app.paths)

    def _bind_grpc(self, adders: Sequence[Add], seen: Observation) -> None:
        from meshkit.server.grpc import GrpcServer  # noqa: PLC0415 - HTTP alone needs no gRPC

        settings = self._settings
        make = functools.partial(
            GrpcServer,
            settings.host,
            settings.grpc_port,
            baggage=settings.baggage,
            limiter=seen.limit("grpc", new_limiter(settings)),
            max_message=settings.max_body,
            access_log=settings.access_log,
            watcher=seen.grpc,
        )
        seen.serves_grpc()
        if settings.grpc_thread:
            from meshkit.server.grpc_thread import GrpcThread  # noqa: PLC0415 - few have one

            self.grpc = self._thread = GrpcThread(make)
        else:
            self.grpc = make()
        self.grpc.add(self._service, adders, reflection=settings.env == "development")

    async def start(self) -> None:
        """Accept connections; until the doors open only health is answered."""
        for server in self._bound:
            await server.start()

    async def lend(self, make: Callable[[], Mesh]) -> None:
        """Give the service clients for each further loop, made there."""
        if self._thread is not None:
            await self._thread.lend(self._service, make)

    async def explain(self) -> list[Explanation]:
        """Explain what the clients that were lent go by."""
        return [] if self._thread is None else await self._thread.explain()

    async def begin(self) -> None:
        """Run the start-up of the application's lifespan. Raises StartError when it fails."""
        if self.http is not None:
            await self.http.lifespan.begin()

    def trace(self, telemetry: Telemetry) -> None:
        """Let calls be traced, those of the clients that were lent included."""
        for server in self._bound:
            server.trace(telemetry)
        if self._thread is not None:
            self._thread.trace_clients(telemetry)

    def endpoints(self, host: str, ports: Mapping[str, int] = NO_PORTS) -> dict[str, Endpoint]:
        """Return where each transport is reached, by its name.

        Args:
            host: of all.
            ports: of those that are reached by another port than they listen on.
        """
        found = {"http": self.http, "grpc": self.grpc}
        return {
            name: Endpoint(host, ports.get(name, server.port))
            for name, server in found.items()
            if server is not None
        }

    def identify(self, instance: Instance) -> None:
        """Name ourselves on every answer from now on, and refuse what is meant for others."""
        for server in self._bound:
            server.identify(instance.service, instance.id)

    def show(self, *, ready: bool) -> None:
        """Let gRPC's health service say it; HTTP's looks for itself."""
        if self.grpc is not None:
            task = asyncio.ensure_future(self.grpc.show(ready=ready))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def drain(self) -> None:
        """Go on answering, and tell each caller to move on."""
        if self.http is not None:
            self.http.drain()
        if self.grpc is not None:
            await self.grpc.drain()

    async def quiet(self, deadline: float) -> None:
        """Wait until no more calls come: on a busy machine callers learn later than they should.

        Args:
            deadline: when to stop waiting, on the clock of ``time.monotonic``.
        """
        seen = -1
        while (now := self.calls) != seen:
            if time.monotonic() > deadline:
                return  # whoever still calls does not look at the registry, or at our mark
            seen = now
            await asyncio.sleep(QUIET)

    async def stop(self, *, grace: float) -> None:
        """Close the listeners, wait up to ``grace`` seconds for calls, cancel the rest."""
        stops = [server.stop(grace=grace) for server in self._bound]
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("closing a server failed: %r", result)

    async def end(self) -> None:
        """Run the shutdown of the application's lifespan, if its start-up was run."""
        if self.http is not None and self.http.started:
            await self.http.lifespan.end()

    async def aclose(self) -> None:
        """Close the clients that were lent, and the loop of gRPC's own. Twice is safe."""
        if self._thread is not None:
            await self._thread.aclose()


def warn_of_shadows(routes: Iterable[Any], ours: Collection[str]) -> None:
    """Say which of the application's routes our own pages hide."""
    for route in routes:
        if getattr(route, "path", None) in ours:
            log.warning("the application's route %s is hidden by meshkit's own", route.path)
