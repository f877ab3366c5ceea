"""Who holds a lock and does nothing: a process that was stopped, or hangs as a whole.

A lock tells a death at once, but not this. So an owner dates its lock file anew with each renewal,
by the steady clock, which all processes of a machine share and which no one sets; whose date is
older than the TTL is shown as down. A date brings no news: no watch is woken by a renewal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

TTL = 10.0
# How often those are looked at who have fallen silent, and may beat again.
PATIENCE = 1.0


def beat(fd: int) -> None:
    """Date an open lock file: its owner is alive and well. Raises OSError."""
    now = time.monotonic_ns()
    os.utime(fd, ns=(now, now))


def is_silent(beat_at: int) -> bool:
    """Whether the owner has missed its renewals.

    Args:
        beat_at: the lock file's date in nanoseconds. That of a new file is the wall clock's, which
            is far ahead of the steady one: nobody is silent before the first renewal is due.
    """
    return time.monotonic_ns() - beat_at > TTL * 1e9


class Heartbeats:
    """Finds out when one of a folder's owners has fallen silent, or beats again.

    It costs a look at each file's date, and that only when somebody can have missed a renewal.
    """

    def __init__(self) -> None:
        self._silent: dict[Path, bool] = {}
        self._due = 0.0

    def follow(self, beats: Mapping[Path, int]) -> None:
        """Compare with these dates from now on."""
        self._silent = {lock: is_silent(beat_at) for lock, beat_at in beats.items()}
        self._schedule(min(beats.values(), default=0))

    def changed(self) -> bool:
        """Whether it is time to read the folder again."""
        if not self._silent or time.monotonic() < self._due:
            return False
        oldest = time.monotonic_ns()
        for lock, was_silent in self._silent.items():
            try:
                beat_at = os.stat(lock).st_mtime_ns  # noqa: PTH116 - a third of the cost of Path's
            except OSError:
                return True
            if is_silent(beat_at) != was_silent:
                return True
            oldest = min(oldest, beat_at)
        self._schedule(oldest)
        return False

    def _schedule(self, oldest: int) -> None:
        self._due = max(oldest / 1e9 + TTL, time.monotonic() + PATIENCE)
