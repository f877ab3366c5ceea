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
from meshkit.discovery.damping import is_large_drop, keep_missing, missing
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
    second, because what it says itself is newer. A drop of more than half is doubted for
    ``registry.settle`` seconds and then confirmed by a second read.
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
        old = self.snapshot or self._saved
        self._publish(self._believed(old, self._completed(snapshot)))
        self._outdated = False

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
        return keep_missing(self._saved, listed)

    def _believed(self, old: Snapshot | None, snapshot: Snapshot) -> Snapshot:
        """Return the list; while a loss is doubted, those who vanished are still in it."""
        if old is None or not self._is_doubtful(old, snapshot):
            return snapshot
        if self._confirmation is None:
            count = len(missing(old, snapshot))
            log.info("%s: confirming that %d of the listed are gone", self.service, count)
            self._confirmation = asyncio.create_task(self._confirm())
        return keep_missing(old, snapshot)

    def _is_doubtful(self, old: Snapshot, new: Snapshot) -> bool:
        """Whether instances may be missing because the registry has forgotten them.

        One that has just come back, or whose loss is being confirmed, may have been emptied, and
        fills up one by one.
        """
        settle = self._registry.settle
        if settle == 0 or self._outdated:
            return False
        recovering = time.monotonic() - self._recovered_at < settle
        if recovering or self._confirmation is not None:
            return bool(missing(old, new))
        return is_large_drop(old, new)

    async def _confirm(self) -> None:
        """Read again when the doubt has lasted long enough; the watch may stay silent."""
        pause, backoff = self._registry.settle, Backoff(cap=RETRY_CAP)
        while True:
            await asyncio.sleep(pause)
            listed = self._listed
            try:
                snapshot = await self._registry.instances(self.service)
                break
            except RegistryError:
                if self._closed:  # cancelling may end in an engine's error instead
                    return
                pause = backoff.next()
        self._confirmation = None
        # What the watch has found meanwhile is newer than what was read beside it.
        newer = self._listed is not None and self._listed is not listed
        self._publish(self._completed(self._listed if newer and self._listed else snapshot))

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
