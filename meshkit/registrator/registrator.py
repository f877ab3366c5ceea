"""The registrator at work: Docker is followed, and the registry made to show what it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from meshkit.backoff import Backoff
from meshkit.docker import Docker, DockerError
from meshkit.errors import MeshError, RegistryError
from meshkit.registrator.backends import Backend
from meshkit.registrator.backends.base import AUDIT
from meshkit.registrator.checks import Checks
from meshkit.registrator.counters import Counters
from meshkit.registrator.events import Follower
from meshkit.registrator.fleet import Fleet
from meshkit.registrator.options import Host, Options
from meshkit.registrator.reconcile import Desired, Plan, Reconciler

# Between two attempts while nothing can be done, and between two at what a registry does not take.
LOST_PAUSE, REFUSED_PAUSE = 2.0, 15.0

log = logging.getLogger("meshkit.registrator")


class Registrator:
    """Keeps one registry in accordance with one Docker engine.

    Args:
        docker: the engine.
        backend: where records are kept.
        options: what the user asked for.
        host: the engine's machine.
        counters: filled as things happen.
        hears: whether services can tell us that they are well; see :class:`.checks.Checks`.

    Attributes:
        checks: that we run, because the registry runs none; else None.
    """

    def __init__(
        self,
        docker: Docker,
        backend: Backend,
        options: Options,
        host: Host,
        counters: Counters,
        *,
        hears: bool = False,
    ) -> None:
        self._docker = docker
        self._backend = backend
        self._options = options
        self._counters = counters
        self._awake = asyncio.Event()
        self._fleet = Fleet(docker, options, host, counters, self._awake.set)
        self._reconciler = Reconciler(backend, counters)
        self.checks = None if backend.runs_checks else Checks(self._awake.set, hears=hears)

    async def run(self) -> None:
        """Go on until cancelled.

        Raises:
            RegistryError: the registry could not be reached at start, as often as was asked for.
            DockerError: the engine can't be read at start.
        """
        await self._fleet.refresh()
        await self._reach()
        follower = Follower(self._docker, self._fleet, self._awake.set, self._counters)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(follower.run())
                group.create_task(self._list_again())
                group.create_task(self._renew())
                group.create_task(self._work())
        except* MeshError as errors:
            raise errors.exceptions[0] from None
        finally:
            if self.checks is not None:
                await self.checks.aclose()

    async def once(self) -> None:
        """Make the registry right once. Raises DockerError or RegistryError."""
        await self._make(await self._look())

    async def plan(self) -> Plan:
        """Return what :meth:`once` would do. Raises DockerError or RegistryError."""
        return await self._reconciler.plan(await self._look())

    async def withdraw(self) -> None:
        """Remove all that is ours. Raises RegistryError."""
        await self._make(Desired())

    async def _make(self, desired: Desired) -> None:
        """Make the registry show this. Raises RegistryError."""
        errors = await self._reconciler.apply(desired)
        if errors:
            raise errors[0]

    async def _look(self) -> Desired:
        """Return what the registry shall show, after one look at everything."""
        await self._fleet.refresh(patience=None)
        if self.checks is None:
            return self._desired()
        async with contextlib.aclosing(self.checks):
            await self.checks.decide(self._fleet.records)
            return self._desired()

    def _desired(self) -> Desired:
        fleet = self._fleet
        records, undecided = fleet.records, frozenset[str]()
        if self.checks is not None:
            records, undecided = self.checks.judge(records)
        return Desired(
            records=records, undecided=undecided, kept=fleet.kept, complete=fleet.complete
        )

    async def _reach(self) -> None:
        """Wait for the registry, for as many attempts as there may be."""
        left, said = self._options.retry_attempts, ""
        while True:
            try:
                await self._backend.reach()
            except RegistryError as error:
                if left == 0:
                    raise
                if str(error) != said:
                    log.warning("%s; trying again", error)
                said, left = str(error), left - 1
                await asyncio.sleep(self._options.retry_interval / 1000)
            else:
                return

    async def _work(self) -> None:
        """Reconcile after each event, and now and then without one.

        One round at a time: what happens to a container is seen in the order in which it happens,
        and what came meanwhile makes one more round, not one for each event.
        """
        backoff, lost = Backoff(cap=LOST_PAUSE), ""
        refused = Backoff(first=1.0, cap=REFUSED_PAUSE)
        while True:
            self._awake.clear()
            try:
                errors = await self._round()
            except RegistryError as error:
                if str(error) != lost:
                    log.warning("%s; trying again until it is back", error)
                lost = str(error)
                await asyncio.sleep(backoff.next())
                continue
            if lost:
                log.warning("%s is back", self._backend.url)
            lost = ""
            backoff.reset()
            pause = refused.next() if errors else AUDIT
            if not errors:
                refused.reset()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._awake.wait()

    async def _round(self) -> Sequence[MeshError]:
        """Return what could not be done. Raises RegistryError when the registry is lost."""
        errors: list[MeshError] = []
        try:
            await self._fleet.refresh()
        except DockerError as error:  # what is known is still to be there
            errors.append(error)
        return [*errors, *await self._reconciler.apply(self._desired())]

    async def _list_again(self) -> None:
        """Read all containers now and then: there is nothing that events alone have to tell."""
        while True:
            await asyncio.sleep(self._options.resync)
            self._fleet.mark_all()
            self._awake.set()

    async def _renew(self) -> None:
        """Keep alive what would end; whatever is lost is put anew by the next round."""
        while True:
            await asyncio.sleep(self._backend.renewal)
            try:
                await self._backend.renew()
            except RegistryError as error:
                log.debug("%s", error)  # the round says it
                self._awake.set()
