"""The life of a service, in order: every step of start and stop is one line of this file."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from meshkit.client.mesh import Mesh
from meshkit.errors import ConfigError, StartError
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.runtime.advertise import Advertised, advertised, reached_locally
from meshkit.runtime.configuration import Configuration
from meshkit.runtime.hooks import run_hook, within
from meshkit.runtime.identity import new_instance
from meshkit.runtime.observation import Observation
from meshkit.runtime.probe import probe
from meshkit.runtime.registration import Registration
from meshkit.runtime.servers import Servers
from meshkit.runtime.signals import StopSignals
from meshkit.server.health import Health, Phase
from meshkit.service import MeshService, health_checks
from meshkit.settings import MeshSettings, load_settings
from meshkit.telemetry.otel import telemetry
from meshkit.telemetry.state import Sources

FIRST_REGISTRATION = 3.0  # seconds to wait before saying that the registry is away
STRAGGLERS = 5.0  # seconds that callers who have not heard of it may keep us
FORCE_MARGIN = 1.0  # after the shutdown limit, for a process that something still holds
CANCEL_MARGIN = 2.0  # of the shutdown limit, for what comes after the calls in flight

log = logging.getLogger("meshkit")


class Runtime:
    """Runs one service in this event loop.

    ``async with Runtime(service):`` for tests and notebooks; :meth:`serve` for a process, which
    also owns the signals.

    Args:
        service: what to run.
        registry: registry URL; the setting ``registry`` when None.
        settings: all settings; read from the environment when None.
        overrides: single settings that win over the environment, as in ``port=8000``.

    Raises:
        ConfigError: a setting or the service's declaration is not usable.
    """

    def __init__(
        self,
        service: MeshService,
        *,
        registry: str | None = None,
        settings: MeshSettings | None = None,
        **overrides: Any,
    ) -> None:
        if not service.name:
            raise ConfigError(
                f'{type(service).__name__} has no name: set `name = "..."` in its class'
            )
        if settings is None:
            settings = load_settings(registry=registry, **overrides)
        self.service = service
        self.settings = settings
        self.instance: Instance | None = None
        self.registration: Registration | None = None
        self.health = Health(
            health_checks(service),
            timeout=settings.check_timeout,
            interval=settings.check_interval,
        )
        self._servers = Servers(service, settings)
        self._registry: Registry | None = None
        self._mesh: Mesh | None = None
        self._configuration: Configuration | None = None
        self._observation: Observation | None = None
        self._hooks_ran = False  # on_stop undoes what on_start has finished
        self._stopping: asyncio.Task[None] | None = None

    @property
    def mesh(self) -> Mesh:
        """The service's way to other services."""
        return self.service.mesh

    @property
    def http_url(self) -> str | None:
        """Base URL of the HTTP endpoint as others reach it; None without one."""
        endpoint = self.instance.endpoints.get("http") if self.instance else None
        return f"http://{endpoint}" if endpoint else None

    @property
    def grpc_target(self) -> str | None:
        """``host:port`` of the gRPC endpoint as others reach it; None without one."""
        endpoint = self.instance.endpoints.get("grpc") if self.instance else None
        return str(endpoint) if endpoint else None

    @property
    def listening(self) -> dict[str, Endpoint]:
        """Where this machine itself reaches each transport, whatever address is advertised."""
        return self._servers.endpoints(reached_locally(self.settings.host))

    @property
    def registry_url(self) -> str:
        """The registry's URL, without secrets."""
        return self._registry.url if self._registry is not None else ""

    @property
    def registry_state(self) -> str:
        """One word or line on the registration, for people."""
        if self.registration is not None:
            return self.registration.state
        return "not registered"

    def describe(self) -> dict[str, Any]:
        """Return what a readiness answer says beside the checks."""
        return {
            "service": self.service.name,
            "instance": self.instance.id if self.instance else None,
            "registry": self.registry_state,
            "loop_lag_s": round(self.registration.lag, 3) if self.registration else 0.0,
        }

    async def start(self) -> None:
        """Go through the start order; on failure everything begun is undone.

        Raises:
            StartError: a port is taken, a hook failed, or the advertised address is wrong.
        """
        try:
            await self._start()
        except BaseException:
            # Once others may know of us it takes a whole stop, with its drain.
            await (self._abandon() if self.registration is None else self.stop())
            raise

    async def _start(self) -> None:
        self._registry = open_registry(self.settings.registry)
        chosen = await advertised(self.settings, self._servers.ports, self._registry)
        self._bind()
        await self._serve()
        await self._begin(self._registry)
        await self.health.check()
        self.instance = self._new_instance(chosen)
        self._servers.identify(self.instance)
        await self._probe(self.instance, chosen.advice)
        told = ", ".join(f"{name} {where}" for name, where in self.instance.endpoints.items())
        log.info("advertising %s: %s%s", told, chosen.rule, chosen.caution)
        self.health.on_change(self._readiness_changed)
        self.health.enter(Phase.SERVING)
        self.health.start()
        await self._register(self.instance)

    def _bind(self) -> None:
        self._observation = self._observe()
        self._servers.bind(self.health, self.describe, self._observation)

    def _observe(self) -> Observation:
        """Prepare what is shown of the service, so that a missing library fails first."""
        sources = Sources(
            instance=lambda: self.instance,
            registry=lambda: self.registry_url,
            registration=lambda: self.registration,
            ready=lambda: self.health.ready,
            mesh=lambda: self._mesh,
            elsewhere=self._servers.explain if self.settings.grpc_thread else None,
        )
        taken = {getattr(route, "path", "") for route in self._servers.routes}
        observation = Observation(self.settings, sources, taken)
        observation.bind(self.health, self.describe)
        return observation

    async def _serve(self) -> None:
        if self._observation is not None:
            await self._observation.start()
        await self._servers.start()

    async def _begin(self, registry: Registry) -> None:
        """Run what the user has written for the start; outgoing calls work from here on."""
        self.service.mesh = self._mesh = self._new_mesh(registry)
        await self._servers.lend(functools.partial(self._new_mesh, self.settings.registry))
        self._configuration = Configuration(self.service, registry)
        await self._configuration.start()
        await self._servers.begin()
        await run_hook(self.service.on_start, "on_start", self.service)
        self._hooks_ran = True
        self._trace()
        self._configuration.announce()

    def _trace(self) -> None:
        """Let OpenTelemetry see the calls, in and out, if it is there by now."""
        service = self.service
        found = telemetry(self.settings.otel, service.name, service.version)
        if found is None:
            return
        self._servers.trace(found)
        assert self._mesh is not None
        self._mesh.trace(found)

    def _new_mesh(self, registry: str | Registry) -> Mesh:
        settings = self.settings
        return Mesh(
            registry,
            timeout=settings.call_timeout,
            balancer=settings.balancer,
            zone=settings.zone,
            failover=settings.failover,
            failover_share=settings.failover_share,
        )

    def _new_instance(self, chosen: Advertised) -> Instance:
        endpoints = self._servers.endpoints(chosen.host, chosen.ports)
        return new_instance(self.service, self.settings, endpoints)

    async def _probe(self, instance: Instance, advice: str) -> None:
        if self.settings.self_probe == "off":
            return
        try:
            await probe(instance, advice=advice)
        except StartError as error:
            if self.settings.self_probe == "require":
                raise
            log.warning("%s", error)

    def _readiness_changed(self, ready: bool) -> None:  # noqa: FBT001 - a listener
        self._servers.show(ready=ready)
        # One that leaves is deregistered next: to be shown as down first would be a write too many.
        if self.registration is not None and self.health.phase is Phase.SERVING:
            self.registration.show(healthy=ready)

    async def _register(self, instance: Instance) -> None:
        assert self._registry is not None
        if not self.settings.registration or self._registry.read_only:
            return
        self.registration = Registration(
            functools.partial(open_registry, self.settings.registry),
            instance,
            lag_limit=self.settings.loop_lag_limit,
            other_loop=self._servers.other_loop,
        )
        self.registration.show(healthy=self.health.ready)
        self.registration.start()
        await self.registration.first(FIRST_REGISTRATION)

    async def stop(self) -> None:
        """Go through the stop order; returns within ``shutdown_timeout``. Twice is safe.

        It goes on when the caller is cancelled: half a stop would leave listeners behind.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="meshkit-stop")
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        deadline = time.monotonic() + self.settings.shutdown_timeout
        self.health.enter(Phase.DRAINING)
        await self._deregister()
        await self._drain(deadline - CANCEL_MARGIN)
        await self._servers.stop(grace=deadline - CANCEL_MARGIN - time.monotonic())
        await self._end(deadline)

    async def _deregister(self) -> None:
        if self.registration is not None:
            await self.registration.stop()

    async def _drain(self, deadline: float) -> None:
        """Keep accepting until the slowest caller knows, and tell those who call meanwhile."""
        await self._servers.drain()
        left = deadline - time.monotonic()
        if self.settings.drain_delay is not None:
            await asyncio.sleep(min(self.settings.drain_delay, left))
        elif self._registry is not None and (self.registration or self._registry.listed_by_others):
            await asyncio.sleep(min(self._registry.propagation, left))
            await self._servers.quiet(min(deadline, time.monotonic() + STRAGGLERS))

    async def _end(self, deadline: float) -> None:
        """Run the user's part of the stop, then close the outgoing clients, last of all."""
        limit = max(1.0, deadline - time.monotonic()) / 2
        if self._configuration is not None:
            await within(limit, self._configuration.aclose(), "following the configuration")
        if self._hooks_ran:
            hook = run_hook(self.service.on_stop, "on_stop", self.service)
            await within(limit, hook, "on_stop")
        await within(limit, self._servers.end(), "the application's lifespan")
        await self.health.aclose()
        if self._observation is not None:
            await self._observation.aclose()
        await self._close_clients()

    async def _close_clients(self) -> None:
        await self._servers.aclose()
        if self._mesh is not None:
            self.service.mesh = None
            await self._mesh.aclose()
        elif self._registry is not None:
            await self._registry.aclose()

    async def _abandon(self) -> None:
        """Undo an unfinished start, without a drain: nobody has been told of us."""
        await self._servers.stop(grace=0.0)
        await self._end(time.monotonic() + CANCEL_MARGIN)

    async def serve(self, on_ready: Callable[[Runtime], None] | None = None) -> None:
        """Start, run until SIGTERM or SIGINT, stop. A second signal ends the process at once.

        Args:
            on_ready: called once the service is up.

        Raises:
            MeshError: the service could not start.
        """
        with StopSignals(self.settings.shutdown_timeout + FORCE_MARGIN) as signals:
            asked = asyncio.create_task(signals.wait())
            starting = asyncio.create_task(self.start())
            await asyncio.wait({asked, starting}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return
            try:
                await starting
                if on_ready is not None:
                    on_ready(self)
                await asked
                log.info(
                    "stopping: calls under way have %g s; a second signal ends them at once",
                    self.settings.shutdown_timeout,
                )
                await self.stop()
                log.info("stopped")
            finally:
                asked.cancel()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
