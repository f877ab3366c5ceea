"""Running the user's part of start and stop, so that its errors say where they come from."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable

from meshkit.errors import ConfigError, MeshError, StartError
from meshkit.places import place
from meshkit.reasons import reason
from meshkit.service import MeshService

log = logging.getLogger("meshkit")


async def within(limit: float, ending: Awaitable[None], what: str) -> None:
    """Await a step of the stop; one that fails or takes too long must not keep back the next."""
    try:
        async with asyncio.timeout(limit):
            await ending
    except TimeoutError:
        log.warning("%s took longer than %.1f s to end and was cancelled", what, limit)
    except MeshError as error:
        log.warning("%s", error)


async def run_hook(hook: Callable[[], Awaitable[None]], name: str, service: MeshService) -> None:
    """Run ``on_start`` or ``on_stop``. Raises StartError that says which one failed, and why."""
    if not inspect.iscoroutinefunction(hook):
        raise ConfigError(f"{type(service).__name__}.{name} must be `async def {name}(self)`")
    try:
        await hook()
    except MeshError:
        raise
    except Exception as error:
        log.debug("%s failed", name, exc_info=True)
        raise StartError(
            f"{name} of {type(service).__name__} failed: {reason(error)}{place(error)}"
        ) from error
