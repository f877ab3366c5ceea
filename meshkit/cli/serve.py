"""One service in this process: made ready, announced, and run until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from meshkit.cli.banner import announce
from meshkit.cli.running import noted, started
from meshkit.client.declared import HttpDependency, dependencies
from meshkit.service import serves_http, servicers

if TYPE_CHECKING:
    from meshkit.runtime import Runtime
    from meshkit.service import MeshService
    from meshkit.settings import MeshSettings


log = logging.getLogger("meshkit")


def serve(
    service: MeshService,
    settings: MeshSettings,
    on_ready: Callable[[], None] | None = None,
    *,
    number: str = "",
) -> None:
    """Run the service in this process until it is told to stop.

    Args:
        service: what to run.
        settings: how.
        on_ready: called once it is up.
        number: "2/3" when it is one of several.
    """
    if reloader := os.environ.get("MESHKIT_RELOADED"):
        from meshkit.cli.parent import die_with

        die_with(int(reloader))
    warm_up(service)
    from meshkit.runtime import Runtime

    began = process_start()
    runtime = Runtime(service, settings=settings)
    note = contextlib.ExitStack()

    def ready(runtime: Runtime) -> None:
        assert runtime.instance is not None
        note.enter_context(noted(runtime.instance.id, runtime.listening))
        announce(runtime, seconds=time.time() - began, number=number)
        if on_ready is not None:
            on_ready()

    with note, asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(runtime.serve(ready))


def warm_up(service: MeshService) -> None:
    """Import and build what a running service needs, and leave it out of garbage collections."""
    modules = ["meshkit.runtime"]
    if serves_http(service):
        modules += ["meshkit.server.http", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on"]
        _ = service.app
    if servicers(type(service)):
        modules.append("meshkit.server.grpc")
    if any(isinstance(each, HttpDependency) for each in dependencies(type(service))):
        modules.append("meshkit.client.http1")
    for module in modules:
        importlib.import_module(module)
    loop_factory()
    # All this lives as long as the process. Forked instances keep sharing its pages, which a
    # collection would write to.
    gc.freeze()
    gc.enable()


def hint_at_unused(service: MeshService, settings: MeshSettings) -> None:
    """Warn of ports that were set for what this service does not serve."""
    name = type(service).__name__
    if not servicers(type(service)):
        for unused in filter(None, (settings.grpc_port, settings.advertise_grpc_port)):
            log.warning("gRPC port %d is not used: %s serves no gRPC", unused, name)
    elif not serves_http(service):
        message = "port %d is not used: %s serves no HTTP; --%s is the port of gRPC"
        if settings.port:
            log.warning(message, settings.port, name, "grpc-port")
        if settings.advertise_port:
            log.warning(message, settings.advertise_port, name, "advertise-grpc-port")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it exists."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def process_start() -> float:
    """Return when this process began, in seconds since the epoch; now where /proc can't tell."""
    if not (ticks := started(os.getpid())):
        return time.time()
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / os.sysconf("SC_CLK_TCK")
