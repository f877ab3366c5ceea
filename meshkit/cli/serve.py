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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshkit.cli.logs import is_json
from meshkit.cli.running import noted
from meshkit.client.declared import HttpDependency, dependencies
from meshkit.service import serves_http, servicers

if TYPE_CHECKING:
    from meshkit.runtime import Runtime
    from meshkit.service import MeshService
    from meshkit.settings import MeshSettings


def serve(
    service: MeshService, settings: MeshSettings, on_ready: Callable[[], None] | None = None
) -> None:
    """Run the service in this process until it is told to stop."""
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
        announce(runtime, seconds=time.time() - began)
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


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it exists."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def process_start() -> float:
    """Return when this process began, in seconds since the epoch; now where /proc can't tell."""
    try:
        stat = Path("/proc/self/stat").read_text()
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return time.time()
    ticks = int(stat.rpartition(")")[2].split()[19])  # starttime, proc(5)
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def facts(runtime: Runtime) -> dict[str, Any]:
    """Return what is where, once the service is up."""
    instance = runtime.instance
    assert instance is not None
    url = runtime.http_url
    return {
        "service": instance.service,
        "version": instance.version,
        "instance": instance.id,
        "pid": os.getpid(),
        "http": url,
        "grpc": runtime.grpc_target,
        "docs": f"{url}/docs" if url else None,
        "health": f"{url}/health/ready" if url else None,
        "registry": runtime.registry_url,
        "registration": runtime.registry_state,
        "ready": runtime.health.ready,
        "tags": list(instance.tags),
    }


def announce(runtime: Runtime, *, seconds: float) -> None:
    """Print what is where: a block for people, one JSON line for programs."""
    known = facts(runtime)
    if is_json(runtime.settings.log_format):
        extra = {**known, "event": "ready", "seconds": round(seconds, 3)}
        record = logging.makeLogRecord(
            {"name": "meshkit", "levelname": "INFO", "msg": "serving", **extra}
        )
        line = logging.getLogger().handlers[0].format(record)
        # In one write: several instances share this stream, and it may be unbuffered.
        print(f"{line}\n", end="", flush=True)
        return
    tags = ", ".join(known["tags"])
    docs = f"   docs: {known['docs']}" if known["docs"] else ""
    state = known["registration"] if known["ready"] else f"{known['registration']}, not ready"
    lines = {
        "HTTP": f"{known['http']}{docs}" if known["http"] else "",
        "gRPC": known["grpc"] or "",
        "Health": known["health"] or "standard gRPC health service",
        "Registry": f"{known['registry']}  ({state})",
        "Tags": tags,
        "Reload": "on" if os.environ.get("MESHKIT_RELOADED") else "",
    }
    title = f"{known['service']} {known['version']}".strip()
    print(f"\n  {title}   {known['instance']}\n")
    for name, value in lines.items():
        if value:
            print(f"  {name:<9} {value}")
    print(f"\n  Up after {seconds:.2f} s. Ctrl-C stops.\n", flush=True)
