"""What is where, once a service is up: for people on a terminal, and for programs."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from meshkit.cli.logs import is_json

if TYPE_CHECKING:
    from meshkit.runtime import Runtime
    from meshkit.service import MeshService
    from meshkit.settings import MeshSettings


def announce(runtime: Runtime, *, seconds: float, number: str = "") -> None:
    """Print what is where: a block for people, one JSON line for programs.

    Args:
        runtime: what has become ready.
        seconds: what that took.
        number: "2/3" when it is one of several, of which each gets a line instead of a block.
    """
    if is_json(runtime.settings.log_format):
        text = json_line(runtime, seconds)
    elif number:
        text = short(runtime, seconds, number)
    else:
        text = block(runtime, seconds)
    # In one write: several instances share this stream, and it may be unbuffered.
    print(f"{text}\n", end="", flush=True)


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


def json_line(runtime: Runtime, seconds: float) -> str:
    """Return the facts as a line of the log."""
    extra = {**facts(runtime), "event": "ready", "seconds": round(seconds, 3)}
    record = logging.makeLogRecord(
        {"name": "meshkit", "levelname": "INFO", "msg": "serving", **extra}
    )
    return logging.getLogger().handlers[0].format(record)


def block(runtime: Runtime, seconds: float) -> str:
    """Return the facts one below the other."""
    known = facts(runtime)
    docs = f"   docs: {known['docs']}" if known["docs"] else ""
    lines = {
        "HTTP": f"{known['http']}{docs}" if known["http"] else "",
        "gRPC": known["grpc"] or "",
        "Health": known["health"] or "standard gRPC health service",
        "Registry": f"{known['registry']}  ({state(known)})",
        "Tags": ", ".join(known["tags"]),
        "Reload": "on" if os.environ.get("MESHKIT_RELOADED") else "",
    }
    title = f"{known['service']} {known['version']}".strip()
    shown = [f"  {name:<9} {value}" for name, value in lines.items() if value]
    return "\n".join(
        [
            f"\n  {title}   {known['instance']}\n",
            *shown,
            f"\n  Up after {seconds:.2f} s. Ctrl-C stops.\n",
        ]
    )


def short(runtime: Runtime, seconds: float, number: str) -> str:
    """Return the facts of one of several instances in a line."""
    known = facts(runtime)
    where = [known["http"] or "", f"grpc {known['grpc']}" if known["grpc"] else ""]
    places = "  ".join(filter(None, where))
    return f"  {number}  {known['instance']}  {places}  {state(known)} after {seconds:.2f} s"


def head(service: MeshService, settings: MeshSettings) -> None:
    """Print what stands above the lines of several instances; nothing for programs."""
    if not is_json(settings.log_format):
        title = f"{service.name} {service.version}".strip()
        print(f"\n  {title}   {settings.instances} instances. Ctrl-C stops all.\n", flush=True)


def state(known: dict[str, Any]) -> str:
    """Return the state of the registration, and whether the instance is ready."""
    registration: str = known["registration"]
    return registration if known["ready"] else f"{registration}, not ready"
