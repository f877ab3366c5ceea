"""The registrator's own health and metrics, over HTTP.

``/health`` answers 200 while Docker and the registry are known to agree, else 503, with the facts;
``/metrics`` is for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence

from meshkit.errors import BindError
from meshkit.registrator.counters import Counters
from meshkit.registrator.options import Options

LIMIT = 5.0
HEAD_LIMIT = 16384
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# A round that is overdue by as much as this is a loop that hangs.
OVERDUE = 3.0


@contextlib.asynccontextmanager
async def serving(
    host: str, ports: Sequence[int], counters: Counters, options: Options
) -> AsyncIterator[None]:
    """Serve both pages on each of the ports within the block. Raises BindError."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.LimitOverrunError, EOFError):
            async with asyncio.timeout(LIMIT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(
                    answer(head.partition(b"\r\n")[0].decode("latin-1"), counters, options)
                )
                await writer.drain()
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        for port in ports:
            try:
                server = await asyncio.start_server(handle, host, port, limit=HEAD_LIMIT)
            except OSError as error:
                raise BindError(
                    f"health and metrics can't be served on port {port}: {error.strerror}"
                ) from None
            await stack.enter_async_context(server)
        yield


def answer(request: str, counters: Counters, options: Options) -> bytes:
    """Return the whole answer to a request line."""
    method, _, rest = request.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        status, kind, body = "405 Method Not Allowed", "text/plain", "GET only\n"
    elif path in ("/health", "/health/ready", "/health/live"):
        well = path == "/health/live" or is_well(counters, options)
        status = "200 OK" if well else "503 Service Unavailable"
        kind, body = "application/json", json.dumps(facts(counters, options))
    elif path == "/metrics":
        status, kind, body = "200 OK", TEXT, metrics(counters)
    else:
        status, kind, body = "404 Not Found", "text/plain", "/health or /metrics\n"
    content = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (content if method != "HEAD" else b"")


def is_well(counters: Counters, options: Options) -> bool:
    """Whether the registry is known to show what Docker runs."""
    age = counters.age
    return (
        counters.docker_up
        and counters.registry_up
        and age is not None
        and age < options.resync * OVERDUE
    )


def facts(counters: Counters, options: Options) -> dict[str, object]:
    """Return what the health page says."""
    age = counters.age
    return {
        "status": "up" if is_well(counters, options) else "down",
        "docker": "up" if counters.docker_up else "down",
        "registry": "up" if counters.registry_up else "down",
        "containers": counters.containers,
        "records": counters.records,
        "owned": counters.owned,
        "reconciled_s_ago": None if age is None else round(age, 1),
    }


def metrics(counters: Counters) -> str:
    """Return what Prometheus reads.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    age = counters.age
    rows: list[tuple[str, str, str, float]] = [
        ("docker_up", "gauge", "1 while Docker answers.", counters.docker_up),
        ("registry_up", "gauge", "1 while the registry answers.", counters.registry_up),
        ("containers", "gauge", "Containers that run.", counters.containers),
        ("records", "gauge", "Addresses that they offer.", counters.records),
        ("owned_entries", "gauge", "Entries of ours in the registry.", counters.owned),
        ("events_total", "counter", "Events of Docker's.", counters.events),
        ("writes_total", "counter", "Entries written.", counters.written),
        ("removals_total", "counter", "Entries removed.", counters.removed),
        (
            "reconcile_age_seconds",
            "gauge",
            "Since Docker and the registry last agreed.",
            float("nan") if age is None else age,
        ),
    ]
    lines = []
    for name, kind, text, value in rows:
        full = f"meshkit_registrator_{name}"
        shown = "NaN" if value != value else f"{float(value):g}"  # noqa: PLR0124 - not a number
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {shown}"]
    full = "meshkit_registrator_errors_total"
    lines += [f"# HELP {full} What went wrong, by where.", f"# TYPE {full} counter"]
    lines += [
        f'{full}{{source="{source}"}} {counters.errors[source]}'
        for source in ("docker", "label", "registry")
    ]
    return "\n".join([*lines, ""])
