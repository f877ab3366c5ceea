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

from meshkit.registry.local.heartbeats import Heartbeats

if TYPE_CHECKING:
    from meshkit.registry.local.inotify import Inotify

POLL = 1.0
# Without news the poll alone must tell of a death, which changes no folder, within a second.
POLL_ALONE = 0.5
# With news, what a folder does not show has been told; this is for what nobody thought of.
LOOK_ANYWAY = 120.0
# Many registrations at once are seen together.
GAP = 0.002
# The kernel tells that a file is being closed just before it lets go of the lock.
LOOK_TWICE = 0.05

Stamp = tuple[int, int, int]  # device, inode and time of change; all 0 for a folder that is gone


class Changes:
    """What one watch waits on: changes in the folders it follows."""

    def __init__(self, notifier: Notifier) -> None:
        self.open = True
        self.told = False  # of what happens in all its folders
        self.heartbeats = Heartbeats()
        self._notifier = notifier
        self._event = asyncio.Event()
        self._folders: dict[Path, Stamp] = {}
        self._news = False
        self._looked_at = 0.0

    def follow(self, *folders: Path) -> None:
        """Follow these folders from now on. To be called before each look: they may be new ones."""
        told = [self._notifier.add(folder, self) for folder in folders]
        self.told = all(told)
        self._folders = {folder: stamp(folder) for folder in folders}

    async def wait(self) -> None:
        """Return when it is time to look again, or ``open`` has become False."""
        self._looked_at = time.monotonic()
        twice, self._news = self._news, False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TWICE if twice else None):
                await self._event.wait()
        if (gap := self._looked_at + GAP - time.monotonic()) > 0:
            await asyncio.sleep(gap)
        self._event.clear()

    def notify(self, *, news: bool = False) -> None:
        """End the wait; for news, look once more a little later."""
        self._news = self._news or news
        self._event.set()

    def poll(self) -> None:
        """End the wait if a folder is another one, or has other files, than when last seen."""
        overdue = time.monotonic() - self._looked_at > LOOK_ANYWAY
        if not self.told or overdue or self._differs() or self.heartbeats.changed():
            self.notify()

    def close(self) -> None:
        """End the wait for good."""
        self.open = False
        self.notify()

    def _differs(self) -> bool:
        return any(stamp(folder) != seen for folder, seen in self._folders.items())


class Notifier:
    """A registry's one inotify descriptor and one timer, shared by its watches.

    A user has but 128 descriptors, and a timer for each watch would keep an idle process busy.
    """

    def __init__(self, *, inotify: bool) -> None:
        self._wanted = inotify
        self._inotify: Inotify | None = None
        self._watches: dict[int, set[Changes]] = {}
        self._all: set[Changes] = set()
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def changes(self) -> Iterator[Changes]:
        """Make what a watch waits on, for as long as it lasts."""
        changes = Changes(self)
        self._all.add(changes)
        self._poll_later()
        try:
            yield changes
        finally:
            self._all.discard(changes)
            self._forget(changes)
            if not self._all:
                self._stop_polling()

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
        self._stop_polling()
        if self._inotify:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        self._wanted = False

    def _poll_later(self) -> None:
        if self._timer is None:
            pause = POLL if all(each.told for each in self._all) else POLL_ALONE
            self._timer = asyncio.get_running_loop().call_later(pause, self._poll)

    def _poll(self) -> None:
        self._timer = None
        for changes in self._all:
            changes.poll()
        self._poll_later()

    def _stop_polling(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

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
                    changes.notify(news=True)
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
    """Return what differs once its files come, go or are renamed, or its owner or mode change."""
    try:
        info = os.stat(folder)  # noqa: PTH116 - a third of the cost of Path's
    except OSError:
        return 0, 0, 0
    return info.st_dev, info.st_ino, info.st_ctime_ns
