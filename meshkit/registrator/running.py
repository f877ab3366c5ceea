"""``meshkit registrator`` from its first question to its clean end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from meshkit.docker import Docker
from meshkit.errors import ConfigError, RegistryError
from meshkit.registrator.backends import Backend
from meshkit.registrator.counters import Counters
from meshkit.registrator.host import find_host
from meshkit.registrator.opening import find_backend, parse, peer_of
from meshkit.registrator.options import Options
from meshkit.registrator.page import Page
from meshkit.registrator.registrator import Registrator
from meshkit.registrator.show import render

WITHDRAW_LIMIT = 10.0

log = logging.getLogger("meshkit.registrator")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done.

    Attributes:
        url: of the registry.
        options: settings of the registrator.
        once: compare and correct once instead of going on.
        dry_run: only show what would change.
        as_json: show it as JSON.
        withdraw: remove all entries of ours at the end.
        ports: where health and metrics are served, all the same on each.
        page_host: the address for that.
    """

    url: str
    options: Options
    once: bool = False
    dry_run: bool = False
    as_json: bool = False
    withdraw: bool = False
    ports: tuple[int, ...] = ()
    page_host: str = "127.0.0.1"


def run(task: Task, show: Callable[[str], None]) -> None:
    """Do it; what a dry run finds is given to ``show``. Raises MeshError."""
    asyncio.run(_until_told(_run(task, show)))


async def _until_told(work: Coroutine[Any, Any, None]) -> None:
    """Do the work until SIGTERM or SIGINT; a second one ends the process at once."""
    loop, doing = asyncio.get_running_loop(), asyncio.create_task(work)

    def stop(number: signal.Signals) -> None:
        log.info("%s: stopping", number.name)
        loop.remove_signal_handler(signal.SIGTERM)
        loop.remove_signal_handler(signal.SIGINT)
        doing.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    with contextlib.suppress(asyncio.CancelledError):
        await doing


async def _run(task: Task, show: Callable[[str], None]) -> None:
    url = parse(task.url)
    open_backend = find_backend(url, task.options)
    counters = Counters()
    async with Docker() as docker:
        host = await find_host(docker, task.options, peer_of(url))
        # Who registers some containers of a host leaves those of the host's others alone.
        owner = f"{host.name} {task.options.only_label}".rstrip()
        async with open_backend(owner) as backend:
            _check(task, backend)
            registrator = Registrator(
                docker, backend, task.options, host, counters, hears=bool(task.ports)
            )
            if task.dry_run:
                show(render(await registrator.plan(), backend, as_json=task.as_json))
            elif task.once:
                await registrator.once()
            else:
                log.info(
                    "registering the containers of %s in %s as host %s",
                    docker.host.address,
                    backend.url,
                    host.name,
                )
                page = Page(counters, task.options, registrator.checks)
                async with page.serving(task.page_host, task.ports):
                    try:
                        await registrator.run()
                    except asyncio.CancelledError:
                        await _leave(task, registrator, backend)
                        raise


def _check(task: Task, backend: Backend) -> None:
    """Say what does not go together. Raises ConfigError."""
    if task.once and not backend.lasting and not task.dry_run:
        raise ConfigError(
            f"--once makes no sense with {backend.url}: entries there end with the registrator"
        )
    if task.options.ttl is not None and not backend.expires:
        log.warning("-ttl has no effect: %s has a way of its own to end entries", backend.url)


async def _leave(task: Task, registrator: Registrator, backend: Backend) -> None:
    """Say what becomes of the entries: the containers run on, and so do their entries."""
    if not task.withdraw:
        stay = "stay" if backend.lasting else "expire"
        log.info("stopped; entries in %s %s (see --withdraw)", backend.url, stay)
        return
    try:
        async with asyncio.timeout(WITHDRAW_LIMIT):
            await registrator.withdraw()
    except (RegistryError, TimeoutError) as error:
        log.warning("entries stay in %s: %s", backend.url, str(error) or "no answer in time")
    else:
        log.info("stopped; entries in %s are removed", backend.url)
