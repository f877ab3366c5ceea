"""Asking an instance whether it is well, before a call risks it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence

from meshkit.discovery.ejection.ejections import Ejections
from meshkit.model import Endpoint, Instance

TIMEOUT = 2.0  # seconds; health checks of the instance's own may run

log = logging.getLogger("meshkit.discovery")

# Whether the instance, which listens there, is well. What it raises means that it is not.
Probe = Callable[[Instance, Endpoint], Awaitable[bool]]


class Prober:
    """Probes one service's instances, over each transport that somebody calls them by.

    A probe costs no caller anything, so that one that hangs or fails is met by nobody but the
    probe. A single call follows all the same: an instance may be well by its own account, and
    fail whatever it is asked. That call is an ordinary one, also one that must not be made
    twice: it goes to an instance that has just said that it is well, and to no other one could
    be said to be safer. Without a probe for its transports, an instance is tried at once.
    """

    def __init__(self, ejections: Ejections) -> None:
        self._ejections = ejections
        self._probes: dict[str, Probe] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def use(self, transport: str, probe: Probe) -> None:
        """Probe instances that serve ``transport`` by this from now on."""
        self._probes[transport] = probe

    def begin(self, instance: Instance) -> bool:
        """Begin to probe in the background. False when there is nothing to do it by."""
        probes = [
            functools.partial(probe, instance, instance.endpoints[transport])
            for transport, probe in self._probes.items()
            if transport in instance.endpoints
        ]
        if not probes:
            return False
        self._ejections.probing(instance.id)
        task = asyncio.create_task(self._run(instance, probes), name=f"meshkit-probe-{instance.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _run(
        self, instance: Instance, probes: Sequence[Callable[[], Awaitable[bool]]]
    ) -> None:
        good = False
        try:
            async with asyncio.timeout(TIMEOUT):
                good = await _all_good(probes)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not well
            log.debug("the probe of %s failed: %r", instance.id, error)
        finally:
            self._ejections.probed(instance.id, good=good)

    async def aclose(self) -> None:
        """End probes that are under way. Closing twice is safe."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _all_good(probes: Sequence[Callable[[], Awaitable[bool]]]) -> bool:
    """Probe in turn: none goes on, unnoticed, after another one has failed."""
    for probe in probes:
        if not await probe():
            return False
    return True
