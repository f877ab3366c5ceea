"""When to look again: at once after a change, and after a while in any case.

News comes from inotify. The poll behind it finds what brings no news (a folder above was moved) by
one look at each folder itself, and is all there is where inotify is missing or used up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.registry.local.inotify import Inotify

POLL = 1.0
# Without news the poll alone must tell of a death, which changes no folder, within a second.
POLL_ALONE = 0.5
# With news, what a folder does not show has been told; this is for what nobody thought of.
LOOK_ANYWAY = 30.0
# Many registrations at once are seen together.
GAP = 0.01
# The kernel tells that a file is being closed just before it lets go of the lock.
LOOK_TWICE = 0.05

Stamp = tuple[int, int, int]  # device, inode and time of change; all 0 for a folder that is gone


class Changes:
    """What one watch waits on: changes in the folders it follows."""

    def __init__(self, notifier: Notifier) -> None:
        self.open = True
        self._notifier = notifier
        self._event = asyncio.Event()
        self._folders: dict[Path, Stamp] = {}
        self._told = False
        self._look_twice = False
        self._looked_at = -GAP

    def follow(self, *folders: Path) -> None:
        """Follow these folders from now on. To be called before each look: they may be new ones."""
        told = [self._notifier.add(folder, self) for folder in folders]
        self._told = all(told)
        self._folders = {folder: stamp(folder) for folder in folders}

    async def wait(self) -> None:
        """Return when it is time to look again, or ``open`` has become False."""
        self._looked_at = time.monotonic()
        while not await self._news(self._pause()):
            if self._look_twice or not self._told or self._differs():
                break
        self._look_twice = self._event.is_set()
        if self._look_twice:
            await asyncio.sleep(self._looked_at + GAP - time.monotonic())
            self._event.clear()

    def _pause(self) -> float:
        if self._look_twice:
            return LOOK_TWICE
        return POLL if self._told else POLL_ALONE

    async def _news(self, limit: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._event.wait()
        return self._event.is_set()

    def _differs(self) -> bool:
        """Whether a folder is another one, or has other files, than when it was looked at."""
        if time.monotonic() - self._looked_at > LOOK_ANYWAY:
            return True
        return any(stamp(folder) != seen for folder, seen in self._folders.items())

    def notify(self) -> None:
        """End the wait."""
        self._event.set()

    def close(self) -> None:
        """End the wait for good."""
        self.open = False
        self.notify()


class Notifier:
    """A registry's one inotify descriptor, shared by its watches: a user has but 128 of them."""

    def __init__(self, *, inotify: bool) -> None:
        self._wanted = inotify
        self._inotify: Inotify | None = None
        self._watches: dict[int, set[Changes]] = {}
        self._all: set[Changes] = set()

    @contextlib.contextmanager
    def changes(self) -> Iterator[Changes]:
        """Make what a watch waits on, for as long as it lasts."""
        changes = Changes(self)
        self._all.add(changes)
        try:
            yield changes
        finally:
            self._all.discard(changes)
            self._forget(changes)

    def add(self, folder: Path, changes: Changes) -> bool:
        """Have ``changes`` notified of what happens in the folder. False when it can't be."""
        try:
            inotify = self._inotify or self._start()
            watch = inotify.add(folder)
        except OSError:  # none left, or none on this system
            return False
        self._watches.setdefault(watch, set()).add(changes)
        return True

    def close(self) -> None:
        """End all waits and let go of the descriptor."""
        for changes in tuple(self._all):
            changes.close()
        if self._inotify:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        self._wanted = False

    def _start(self) -> Inotify:
        if not self._wanted or sys.platform != "linux":
            raise OSError("no inotify")
        from meshkit.registry.local.inotify import Inotify  # noqa: PLC0415 - ctypes takes 4 ms

        self._inotify = Inotify()
        asyncio.get_running_loop().add_reader(self._inotify.fd, self._read, self._inotify)
        return self._inotify

    def _read(self, inotify: Inotify) -> None:
        from meshkit.registry.local.inotify import IGNORED, OVERFLOW, matters  # noqa: PLC0415

        for watch, mask, name in inotify.read():
            told = self._all if watch == OVERFLOW else self._watches.get(watch, ())
            if matters(mask, name):
                for changes in told:
                    changes.notify()
            if mask & IGNORED:
                self._watches.pop(watch, None)

    def _forget(self, changes: Changes) -> None:
        for watch, told in tuple(self._watches.items()):
            told.discard(changes)
            if not told:
                del self._watches[watch]
                if self._inotify:
                    with contextlib.suppress(OSError):  # its folder is gone
                        self._inotify.remove(watch)


def stamp(folder: Path) -> Stamp:
    """Return what differs once files of the folder come, go or are renamed."""
    try:
        info = os.stat(folder)  # noqa: PTH116 - a third of the cost of Path's
    except OSError:
        return 0, 0, 0
    return info.st_dev, info.st_ino, info.st_mtime_ns
