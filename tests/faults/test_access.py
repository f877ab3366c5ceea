"""Proof of who one is that no longer holds, and that is renewed under those who use it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from meshkit.errors import RegistryDenied, RegistryError
from tests.conftest import APPS
from tests.faults.backends.base import Backend
from tests.faults.backends.secured import Secured
from tests.faults.report import Cell, Stopwatch, fault
from tests.faults.world import PATIENCE, Consumer, World
from tests.support.processes import ServiceProcess, processes
from tests.support.waiting import aeventually

RATE = 20


@fault("token revoked, then renewed")
async def test_token(backend: Backend, cell: Cell, tmp_path: Path) -> None:
    """Consumer and instance name what is wrong in one line; calls go on with the last good list;
    with new credentials in their file all is right again, without a restart."""
    with _running(backend.by_token, tmp_path) as (secured, world):
        await _lose_and_regain(secured, world, cell)


@fault("certificate expired, then renewed")
async def test_certificate(backend: Backend, cell: Cell, tmp_path: Path) -> None:
    """A client's certificate that has run out is named in one line once a connection is made
    anew; calls go on with the last good list; with a new one in its file all is right again,
    without a restart."""
    with _running(backend.by_certificate, tmp_path) as (secured, world):
        await _lose_and_regain(secured, world, cell)


@contextlib.contextmanager
def _running(kind: type[Secured] | None, folder: Path) -> Iterator[tuple[Secured, World]]:
    assert kind is not None, "neither tested nor declared absent"
    secured = kind(folder / "secured")
    with contextlib.ExitStack() as stack:
        stack.callback(secured.stop)
        secured.start()
        running = stack.enter_context(processes(APPS, secured.url()))
        yield secured, World(secured, running)


async def _lose_and_regain(secured: Secured, world: World, cell: Cell) -> None:
    await asyncio.to_thread(secured.prepare, world.service)
    (steady,) = await world.start()
    (weak,) = await world.start(url=secured.weak_url())
    async with (
        world.consumer(url=secured.weak_url()) as consumer,
        consumer.load(RATE) as load,
    ):
        await load.answered_by(2)
        await world.lists(steady, weak)
        await asyncio.to_thread(secured.spoil)
        watch = Stopwatch()
        (late,) = await world.start()  # without a change nobody has anything to ask for
        late.send(signal.SIGTERM)
        if secured.told:
            await _says_so(weak)
        error = await _refused(consumer)
        cell.took("named after", watch.seconds)
        assert steady.instance in consumer.up
        await asyncio.to_thread(secured.renew)
        watch = Stopwatch()
        await world.lists(steady, weak)
        await aeventually(lambda: _follows(consumer), within=PATIENCE)
        await consumer.sees(steady, weak)
        cell.took("right again after", watch.seconds)
    assert load.errors == []
    assert not consumer.emptied
    assert "\n" not in str(error)


async def _refused(consumer: Consumer) -> RegistryError:
    """Wait until the consumer knows that it is refused; return what it says."""
    watch = Stopwatch()
    while not _names(error := consumer.subscription.error):
        assert watch.seconds < PATIENCE, f"not refused; the last error is {error!r}"
        await asyncio.sleep(0.02)
    return error


def _names(error: RegistryError | None) -> TypeGuard[RegistryError]:
    """Whether it says what is refused, and not only that nobody answers."""
    return isinstance(error, RegistryDenied) or "cert" in str(error)


async def _follows(consumer: Consumer) -> bool:
    return consumer.subscription.error is None


async def _says_so(process: ServiceProcess) -> None:
    """Wait until the service has said in its log that it can't register."""

    async def said() -> bool:
        return "can't register with" in process.output

    await aeventually(said, within=PATIENCE)
    assert "Traceback" not in process.output
