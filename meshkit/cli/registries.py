"""The registry that a command reads or writes: chosen, reached in time, and spelt right."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

import typer

from meshkit.errors import ConfigError, RegistryError, RegistryUnavailable
from meshkit.registry import KeyValue, Registry, open_registry

LIMIT = 10.0  # seconds for one answer
Url = Annotated[
    list[str] | None,
    typer.Option("--registry", help="Registry URL [local://]; may be repeated."),
]


def opened(urls: list[str] | None) -> Registry:
    """Open the registry of these URLs, or of the settings.

    Raises:
        ConfigError: a URL is not usable, or of a registry that no other process can see.
    """
    from meshkit.settings import load_settings

    url = load_settings(registry=urls or None).registry
    if any(each.startswith("memory://") for each in url.split()):
        raise ConfigError(
            "memory:// lives within one process: a command finds nothing there and keeps nothing; "
            "choose another by --registry"
        )
    return open_registry(url)


@contextlib.asynccontextmanager
async def limit(registry: Registry) -> AsyncIterator[KeyValue]:
    """Use the registry's values; RegistryError when it has none, or does not answer in time."""
    async with in_time(registry):
        yield registry.kv


@contextlib.asynccontextmanager
async def in_time(registry: Registry) -> AsyncIterator[None]:
    """Raise RegistryUnavailable when the block takes too long."""
    try:
        async with asyncio.timeout(LIMIT):
            yield
    except TimeoutError:
        raise RegistryUnavailable(f"{registry.url}: no answer within {LIMIT:.0f} s") from None


async def hint_at_unknown(registry: Registry, service: str, tags: Sequence[str] = ()) -> None:
    """Say on stderr that nobody is registered by this name, or with one of these tags.

    It may be a typo, or somebody who has not started yet. Silent where the list can't be had.
    """
    try:
        async with in_time(registry):
            known = {each.name: each.tags for each in await registry.services()}
    except RegistryError:
        return
    if service not in known:
        near = difflib.get_close_matches(service, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        note(f"nobody is registered as {service} in {registry.url} yet{hint}")
        return
    for tag in tags:
        if tag not in known[service]:
            note(f"no instance of {service} has the tag {tag!r} yet")


def note(text: str) -> None:
    """Print a line that is no error."""
    print(f"meshkit: note: {text}", file=sys.stderr, flush=True)
