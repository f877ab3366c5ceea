"""The registrator's own health and metrics, over HTTP.

``/health`` answers 200 while Docker and the registry are known to agree, else 503, with the facts;
``/metrics`` is for Prometheus. Where we run the checks, a service with CHECK_TTL says here that it
is well, by the same request that Consul's agent takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from urllib.parse import unquote

from meshkit.errors import BindError
from meshkit.registrator.checks import Checks
from meshkit.registrator.counters import Counters
from meshkit.registrator.options import Options

LIMIT = 5.0
HEAD_LIMIT = 16384
PLAIN = "text/plain"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# As https://developer.hashicorp.com/consul/api-docs/agent/check#ttl-check-pass has it.
HEARTBEAT = re.compile(r"/v1/agent/check/(pass|warn|fail)/service:([^/]+)")
# A round that is overdue by as much as this is a loop that hangs.
OVERDUE = 3.0


class Page:
    """Answers what is asked for by HTTP.

    Args:
        counters: what is shown.
        options: tell when a comparison is overdue.
        checks: whom services tell that they are well, by the path that Consul has for it.
    """

    def __init__(self, counters: Counters, options: Options, checks: Checks | None = None) -> None:
        self._counters = counters
        self._options = options
        self._checks = checks

    @contextlib.asynccontextmanager
    async def serving(self, host: str, ports: Sequence[int]) -> AsyncIterator[None]:
        """Serve on each of the ports within the block. Raises BindError."""
        async with contextlib.AsyncExitStack() as stack:
            for port in ports:
                try:
                    server = await asyncio.start_server(self._handle, host, port, limit=HEAD_LIMIT)
                except OSError as error:
                    raise BindError(
                        f"health and metrics can't be served on port {port}: {error.strerror}"
                    ) from None
                await stack.enter_async_context(server)
            yield

    def answer(self, request: str) -> bytes:
        """Return the whole answer to a request line."""
        method, _, rest = request.partition(" ")
        status, kind, body = self._answer(method, rest.partition(" ")[0].partition("?")[0])
        content = body.encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (content if method != "HEAD" else b"")

    def _answer(self, method: str, path: str) -> tuple[str, str, str]:
        if found := HEARTBEAT.fullmatch(path):
            if method != "PUT":
                return "405 Method Not Allowed", PLAIN, "PUT only\n"
            record_id, well = unquote(found[2]), found[1] != "fail"
            if self._checks is None or not self._checks.hear(record_id, well=well):
                return "404 Not Found", PLAIN, f"{record_id} has no TTL check here\n"
            return "200 OK", PLAIN, ""
        if method not in ("GET", "HEAD"):
            return "405 Method Not Allowed", PLAIN, "GET only\n"
        if path in ("/health", "/health/ready", "/health/live"):
            well = path == "/health/live" or is_well(self._counters, self._options)
            status = "200 OK" if well else "503 Service Unavailable"
            return status, "application/json", json.dumps(facts(self._counters, self._options))
        if path == "/metrics":
            return "200 OK", TEXT, metrics(self._counters)
        return "404 Not Found", PLAIN, "/health or /metrics\n"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.LimitOverrunError, EOFError):
            async with asyncio.timeout(LIMIT):
                head = await reader.readuntil(b"\r\n\r\n")
                request = head.partition(b"\r\n")[0].decode("latin-1")
                writer.write(self.answer(request))
                await writer.drain()
        writer.close()


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
