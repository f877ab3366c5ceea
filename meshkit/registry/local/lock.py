"""Lock files: locked for as long as the process lives, free the moment it is dead.

flock belongs to the open file description, not to the process: a second registry in the same
process conflicts as another process would, and closing one file releases no other's lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Self

from meshkit.registry.local.heartbeats import beat

# No file, one that we may not read, a link: not locked by any of us.
NOT_OURS = (errno.ENOENT, errno.EACCES, errno.ELOOP)

# A fork between opening a file and noting it would give the child a lock it doesn't know of.
_forking = threading.Lock()
_held: set[LockFile] = set()


class LockFile:
    """A lock on a file, held until :meth:`release` or the end of the process."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path, *, announce: bool, shared: bool = False) -> Self | None:
        """Lock the file, made if needed; None when somebody else has it locked.

        Args:
            path: the file; its folder must exist.
            announce: open it for writing, so that watchers of the folder are told when it is
                closed. The kernel closes it for a process that is killed, which makes this the
                fastest news of a death, and it reaches containers that share the folder.
            shared: with others who share it, instead of alone.

        Raises:
            OSError: the file can't be made or locked.
        """
        mode = os.O_WRONLY if announce else os.O_RDONLY
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            with _forking:
                lock = cls(path, os.open(path, mode | os.O_CREAT | os.O_NOFOLLOW, 0o600))
                _held.add(lock)
            try:
                fcntl.flock(lock._fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                lock._close()
                return None
            except OSError:
                lock._close()
                raise
            if lock.linked:
                return lock
            # Swept between open and lock: what we have is a file without a name.
            lock.release()

    @property
    def held(self) -> bool:
        """Whether it is this process that holds it: not after release, nor in a forked child."""
        return self._fd >= 0

    @property
    def linked(self) -> bool:
        """Whether it is held and its path still leads to it: others see it."""
        if not self.held:
            return False
        try:
            return os.path.samestat(os.lstat(self.path), os.fstat(self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def beat(self) -> None:
        """Say that the owner lives and works. Raises OSError."""
        beat(self._fd)

    def release(self) -> None:
        """Unlock and close. Twice is no error; in a forked child it does nothing."""
        if self.held:
            # Closing is not enough: a child forked by other means may share the file.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self._close()

    def _close(self) -> None:
        _held.discard(self)
        fd, self._fd = self._fd, -1
        os.close(fd)


def locked_since(path: Path) -> int | None:
    """Return the file's date in nanoseconds if a living process holds the lock, else None.

    Raises OSError when it can't be told.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in NOT_OURS:
            return None
        raise
    try:
        # Shared, so that two who look at once don't take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked just now would keep it
    except BlockingIOError:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)
    return None


def _after_fork_in_child() -> None:
    """Close the parent's locks, or this child would keep its dead parent's instances alive."""
    for lock in tuple(_held):
        lock._close()  # noqa: SLF001 - never release(): that unlocks it for the parent too
    _forking.release()


os.register_at_fork(
    before=_forking.acquire,
    after_in_parent=_forking.release,
    after_in_child=_after_fork_in_child,
)
