"""When to look again: at once after a change, and after a while in any case.

News comes from inotify. The poll behind it finds what brings no news (a folder above was moved,
a file system without inotify) and is all there is where inotify is missing or used up.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshkit.registry.local.inotify import Inotify

POLL = 1.0
# Without news the poll alone must tell of a death within a second.
POLL_ALONE = 0.5
# One registration is several events: look when they are over.
COALESCE = 0.002
# The kernel tells that a file is being closed just before it lets go of the lock.
LOOK_TWICE = 0.05


class Changes:
    """What one watch waits on: changes in the folders it follows."""

    def __init__(self, notifier: Notifier) -> None:
        self.open = True
        self._notifier = notifier
        self._event = asyncio.Event()
        self._poll = POLL
        self._look_twice = False

    def follow(self, *folders: Path) -> None:
        """Follow these folders too. To be called before each look, as they may be new ones."""
        told = [self._notifier.add(folder, self) for folder in folders]
        self._poll = POLL if all(told) else POLL_ALONE

    async def wait(self) -> None:
        """Return when it is time to look again, or ``open`` has become False."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_TWICE if self._look_twice else self._poll):
                await self._event.wait()
        self._look_twice = self._event.is_set()
        if self._look_twice:
            await asyncio.sleep(COALESCE)
            self._event.clear()

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
        from meshkit.registry.local.inotify import IGNORED, OVERFLOW  # noqa: PLC0415

        for watch, mask in inotify.read():
            told = self._all if watch == OVERFLOW else self._watches.get(watch, ())
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
