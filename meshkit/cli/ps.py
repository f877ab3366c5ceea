"""``meshkit ps``: what is registered, and in which state."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from typing import Annotated, Any

import typer

from meshkit.cli import colored
from meshkit.cli.outage import Outage
from meshkit.cli.registries import Url, in_time, opened
from meshkit.errors import RegistryError
from meshkit.model import Instance, Status
from meshkit.registry import Registry

REFRESH = 1.0
COLUMNS = ("SERVICE", "INSTANCE", "STATUS", "VERSION", "HTTP", "GRPC", "TAGS", "AGE")
COLORS = {Status.UP: "\033[32m", Status.DOWN: "\033[31m"}
YELLOW, PLAIN, CLEAR = "\033[33m", "\033[0m", "\033[H\033[2J"

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command()
def ps(
    service: Annotated[
        str | None, typer.Argument(help="Only this service.", show_default=False)
    ] = None,
    *,
    registry: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show changes as they come.")
    ] = False,
) -> None:
    """Show the services and instances in the registry.

    With --json, an array of instances; with --json --watch, one such array a line.
    """
    gc.enable()  # it may watch for days
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(show(registry, service, as_json=as_json, watch=watch))


async def show(urls: list[str] | None, service: str | None, *, as_json: bool, watch: bool) -> None:
    """Print the instances once, or on every change.

    Raises:
        RegistryError: it can't be read. A watch goes on over an outage.
    """
    async with opened(urls) as registry:
        outage = Outage(registry.url)
        seen: object = None
        while True:
            try:
                instances = await read(registry, service)
                empty = "" if instances or as_json else await nobody(registry, service)
            except RegistryError as error:
                outage.begins(error)
            else:
                outage.ends()
                text = render(instances, empty, as_json=as_json, watch=watch)
                now = visible(instances, text, as_json=as_json)
                if now != seen:
                    print(text, flush=True)
                seen = now
            if not watch:
                return
            await asyncio.sleep(REFRESH)


def visible(instances: list[Instance], text: str, *, as_json: bool) -> object:
    """Return what has to differ for another print; of ages only a terminal is kept up to date."""
    if as_json:
        return instances
    if sys.stdout.isatty() or not instances:
        return text
    return [row(each)[:-1] for each in instances]


async def read(registry: Registry, service: str | None) -> list[Instance]:
    """Return all instances, by service and age. Raises RegistryError."""
    async with in_time(registry):
        names = [service] if service else [each.name for each in await registry.services()]
        snapshots = await asyncio.gather(*map(registry.instances, names))
    found = [instance for snapshot in snapshots for instance in snapshot.instances]
    return sorted(found, key=lambda each: (each.service, each.started_at, each.id))


async def nobody(registry: Registry, service: str | None) -> str:
    """Say that there are no instances; of one service, also which others there are."""
    if service is None:
        return f"no instance is registered in {registry.url}"
    text = f"no instance of {service} is registered in {registry.url}"
    try:
        async with in_time(registry):
            names = [each.name for each in await registry.services()]
    except RegistryError:  # not every registry, and not everybody, can list them
        return text
    return f"{text}; there are: {', '.join(names)}" if names else text


def render(instances: list[Instance], empty: str, *, as_json: bool, watch: bool) -> str:
    """Return the text to print; ``empty`` is said when there are none."""
    if as_json:
        return json.dumps([describe(each) for each in instances], indent=None if watch else 2)
    color = colored(sys.stdout.isatty())
    text = table(instances, color=color) if instances else empty
    return f"{CLEAR if watch and sys.stdout.isatty() else ''}{text}"


def describe(instance: Instance) -> dict[str, Any]:
    """Return an instance's fields and its age in seconds."""
    return {**instance.to_dict(), "age": round(age(instance), 1)}


def age(instance: Instance) -> float:
    """Return the seconds since the instance started."""
    return max(0.0, time.time() - instance.started_at) if instance.started_at else 0.0


def table(instances: list[Instance], *, color: bool) -> str:
    """Lay the instances out in columns."""
    rows = [COLUMNS, *(row(each) for each in instances)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(COLUMNS))]
    lines = []
    for line, instance in zip(rows, [None, *instances], strict=True):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if color and instance is not None:
            cells[2] = f"{COLORS.get(instance.status, YELLOW)}{cells[2]}{PLAIN}"
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def row(instance: Instance) -> tuple[str, ...]:
    """Return an instance's cells."""
    http, grpc = instance.endpoints.get("http"), instance.endpoints.get("grpc")
    return (
        instance.service,
        instance.id,
        instance.status.value,
        instance.version or "-",
        str(http or "-"),
        str(grpc or "-"),
        ",".join(instance.tags) or "-",
        duration(age(instance)) if instance.started_at else "-",
    )


def duration(seconds: float) -> str:
    """Return 42s, 7m, 3h or 12d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
