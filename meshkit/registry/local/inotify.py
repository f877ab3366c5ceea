"""Linux's inotify by ctypes: news of changes in folders, through one file descriptor.

See inotify(7). The standard library has no binding, and three C calls need no dependency.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

CLOSE_WRITE = 0x8  # a file was written, or a lock's owner is gone
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
DELETE_SELF = 0x400
MOVE_SELF = 0x800
IGNORED = 0x8000  # the watch has ended: its folder was removed
IS_FOLDER = 0x4000_0000
ONLY_FOLDERS = 0x0100_0000
NOT_UNLINKED = 0x0400_0000  # no news of files that have no name any more

CHANGES = CLOSE_WRITE | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
OVERFLOW = -1  # in the place of a watch: news was lost, of any of them

_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER = 64 * 1024


class Inotify:
    """One inotify instance. Every method raises OSError when the system refuses."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._check(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, folder: Path) -> int:
        """Watch a folder and return the watch; the same one when it is watched already."""
        mask = ctypes.c_uint32(CHANGES | ONLY_FOLDERS | NOT_UNLINKED)
        return self._check(self._libc.inotify_add_watch(self.fd, os.fsencode(folder), mask))

    def remove(self, watch: int) -> None:
        """End a watch."""
        self._check(self._libc.inotify_rm_watch(self.fd, watch))

    def read(self) -> Iterator[tuple[int, int, str]]:
        """Yield the waiting events as (watch, mask, file's name); nothing when there are none."""
        try:
            events = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(events):
            watch, mask, _, name_length = _EVENT.unpack_from(events, offset)
            offset += _EVENT.size
            name = events[offset : offset + name_length].rstrip(b"\0")
            offset += name_length
            yield watch, mask, os.fsdecode(name)

    def close(self) -> None:
        """End all watches."""
        os.close(self.fd)

    def _check(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def matters(mask: int, name: str) -> bool:
    """Whether an event can mean another list.

    A new file counts once it has its final name; what begins with a colon serves other files.
    """
    if mask & IS_FOLDER:
        return True
    return not mask & CREATE and not name.endswith(".tmp") and not name.startswith(":")
