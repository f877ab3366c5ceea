"""One service's list, kept current: watch, cache, and doubt."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time

from meshkit.backoff import Backoff
from meshkit.discovery.cache import SnapshotCache
from meshkit.discovery.damping import Doubts, keep, missing
from meshkit.discovery.followed import Followed
from meshkit.errors import RegistryError
from meshkit.model import Snapshot
from meshkit.registry.base import Registry

RETRY_CAP = 5.0
SAVE_DELAY = 0.5
SILENCE = 1.0  # seconds in which a registry that works has answered
OLD = 60.0  # seconds after which a saved list is history, and nothing is missing from a new one

log = logging.getLogger("meshkit.discovery")


class Subscription(Followed):
    """Follows one service in one registry.

    The last good list is kept for as long as the registry is away, marked stale. The one on disk
    serves a consumer that starts meanwhile: once the registry has failed, or been silent for a
    second, because what it says itself is newer. A drop of more than half is doubted: each of
    the lost has to be missing for ``registry.settle`` seconds, and then from a second read.
    """

    def __init__(self, registry: Registry, service: str, cache: SnapshotCache | None) -> None:
        super().__init__(service)
        self._registry = registry
        self._cache = cache
        self._recovered_at = -math.inf
        self._listed: Snapshot | None = None  # by the watch, before any doubt
        self._saved: Snapshot | None = None  # what only the disk knows
        self._outdated = False  # what the disk knew was old when it was read
        self._silence: asyncio.TimerHandle | None = None
        self._doubts = Doubts(registry.settle)
        self._confirmation: asyncio.Task[None] | None = None
        self._save: asyncio.TimerHandle | None = None
        self._closed = False
        if cache is not None and (saved := cache.load(service)) is not None:
            self._saved, self._outdated = saved, saved.age > OLD
            self._silence = asyncio.get_running_loop().call_later(SILENCE, self._use_saved)
        self._task = asyncio.create_task(self._run(), name=f"meshkit-subscription-{service}")

    async def aclose(self) -> None:
        """See :class:`Followed`."""
        self._closed = True
        for timer in (self._save, self._silence):
            if timer is not None:
                timer.cancel()
        self._write()
        tasks = [task for task in (self._confirmation, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff(cap=RETRY_CAP)
        while not self._closed:  # cancelling may end in an engine's error instead
            try:
                async with contextlib.aclosing(self._registry.watch(self.service)) as watch:
                    async for snapshot in watch:
                        backoff.reset()
                        self._found(snapshot)
            except RegistryError as error:
                self._lost(error)
            except Exception as error:
                log.exception("watching %s failed unexpectedly", self.service)
                self._lost(RegistryError(f"{self._registry.url}: {error!r}"))
            await asyncio.sleep(backoff.next())

    def _found(self, snapshot: Snapshot) -> None:
        if self.error is not None:
            log.info("%s: following %s again", self.service, self._registry.url)
            self.error = None
            self._recovered_at = time.monotonic()
        self._listed = snapshot
        self._take(snapshot)
        self._outdated = False

    def _take(self, listed: Snapshot, *, confirmed: bool = False) -> None:
        """Use what is listed, and whoever is missing as long as that is doubted."""
        old = self.snapshot or self._saved
        snapshot = self._completed(listed)
        if old is not None and self._registry.settle and not self._outdated:
            recovering = time.monotonic() - self._recovered_at < self._registry.settle
            snapshot = self._doubts.apply(old, snapshot, recovering=recovering, confirmed=confirmed)
        if self._doubts and self._confirmation is None:
            log.info(
                "%s: confirming that %d of the listed are gone", self.service, len(self._doubts)
            )
            self._confirmation = asyncio.create_task(self._confirm())
        self._publish(snapshot)

    def _completed(self, listed: Snapshot) -> Snapshot:
        """Return the list; with those that only the disk knows, while it may be incomplete.

        A watch of several registries yields a stale list when one of them is away, and may never
        have heard of that one's instances.
        """
        if not listed.stale:
            self._saved = None
        if self._saved is None:
            return listed
        ids = {instance.id for instance in listed.instances}
        unheard = tuple(each for each in self._saved.instances if each.id not in ids)
        self._saved = dataclasses.replace(self._saved, instances=unheard)
        return keep(listed, missing(self._saved, listed))

    async def _confirm(self) -> None:
        """Look again when a loss has lasted long enough; the watch may stay silent."""
        backoff = Backoff(cap=RETRY_CAP)
        while self._doubts:
            if (left := self._doubts.left) > 0:
                await asyncio.sleep(left)
                continue  # whoever has come back is missed no more
            listed = self._listed
            try:
                snapshot = await self._registry.instances(self.service)
            except Exception as error:
                if self._closed:  # cancelling may end in an engine's error instead
                    return
                if not isinstance(error, RegistryError):
                    log.exception("looking for %s again failed unexpectedly", self.service)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            # What the watch has found meanwhile is newer than what was read beside it.
            newer = self._listed if self._listed is not listed else None
            self._take(newer or snapshot, confirmed=True)
        self._confirmation = None

    def _use_saved(self) -> None:
        """Go on with what the disk knows, unless the registry has answered already."""
        if self.snapshot is None and self._saved is not None:
            self._publish(self._saved)

    def _lost(self, error: RegistryError) -> None:
        self._use_saved()
        if self.error is None:
            have = "the last good list stays in use" if self.snapshot else "no list is known yet"
            log.warning("%s: the registry can't be followed: %s; %s", self.service, error, have)
        self.error = error
        for listener in self._loss_listeners:
            listener()
        if self.snapshot is not None and not self.snapshot.stale:
            # Until now the watch has confirmed it by its silence.
            self._publish(dataclasses.replace(self.snapshot, stale=True, read_at=time.time()))

    def _publish(self, snapshot: Snapshot) -> None:
        super()._publish(snapshot)
        if self._cache is not None and not snapshot.stale and self._save is None:
            self._save = asyncio.get_running_loop().call_later(SAVE_DELAY, self._write)

    def _write(self) -> None:
        self._save = None
        if self._cache is not None and self.snapshot is not None and not self.snapshot.stale:
            self._cache.save(dataclasses.replace(self.snapshot, read_at=time.time()))
