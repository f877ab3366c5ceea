"""One service's folder: for each instance ``<id>.lock`` and ``<id>.json``.

The lock comes first and goes last, and who holds it is alone in writing the other files
(``<id>.tmp`` becomes the JSON by one rename). So whatever a process killed at any moment leaves
behind is known by its free lock, without clocks and without trust in process ids.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from meshkit.model import INSTANCE_ID, Instance, Status
from meshkit.registry.local.heartbeats import is_silent
from meshkit.registry.local.lock import LockFile, locked_since

LOCK, DATA, TEMP = ".lock", ".json", ".tmp"

FileId = tuple[int, int, int]


class Folder:
    """See the module. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.service = path.name

    def lock(self, instance_id: str) -> LockFile | None:
        """Take the lock that says the instance lives; None when somebody else has it."""
        return LockFile.acquire(self._file(instance_id, LOCK), announce=True)

    def write(self, instance: Instance) -> FileId:
        """Write the instance's file, whose lock we hold; return what tells it from others."""
        temp = self._file(instance.id, TEMP)
        # The pid is for people; liveness is the lock.
        text = json.dumps({**instance.to_dict(), "pid": os.getpid()}, indent=2)
        with temp.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            written = _file_id(os.fstat(file.fileno()))
        temp.replace(self._file(instance.id, DATA))
        return written

    def has(self, instance_id: str, written: FileId) -> bool:
        """Whether the instance's file is still the one that was written. Costs one stat."""
        try:
            return _file_id(self._file(instance_id, DATA).lstat()) == written
        except (FileNotFoundError, NotADirectoryError):
            return False

    def remove(self, instance_id: str, lock: LockFile) -> None:
        """Remove the instance's files, unless they are no longer ours, and release the lock."""
        try:
            if lock.linked:
                self._file(instance_id, DATA).unlink(missing_ok=True)
                self._file(instance_id, TEMP).unlink(missing_ok=True)
                lock.path.unlink(missing_ok=True)
        finally:
            lock.release()

    def alive(self, instance_id: str) -> bool:
        """Whether a process holds the instance's lock."""
        return locked_since(self._file(instance_id, LOCK)) is not None

    def owner(self, instance_id: str) -> str:
        """Name the process that wrote the file, for messages."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return f"process {json.loads(self._file(instance_id, DATA).read_bytes())['pid']}"
        return "another process"

    def instances(self) -> tuple[Instance, ...]:
        """Read the living, sorted by id, and sweep what the dead left."""
        return self.look()[0]

    def look(self) -> tuple[tuple[Instance, ...], dict[Path, int]]:
        """Do so, and also return the dates of their locks."""
        living, beats = [], {}
        for instance_id in sorted(self._ids()):
            lock = self._file(instance_id, LOCK)
            beat_at = locked_since(lock)
            if beat_at is None:
                self._sweep(instance_id)
            elif instance := self._read(instance_id):
                beats[lock] = beat_at
                if instance.up and is_silent(beat_at):
                    instance = dataclasses.replace(instance, status=Status.DOWN, lapsed=True)
                living.append(instance)
        return tuple(living), beats

    def _ids(self) -> set[str]:
        """Return the ids of all our files: of each, for a rename may hide one from scandir."""
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return set()
        stems = (os.path.splitext(name) for name in names)  # noqa: PTH122 - no Path per file
        return {
            stem
            for stem, suffix in stems
            if suffix in (LOCK, DATA, TEMP) and INSTANCE_ID.fullmatch(stem)
        }

    def _read(self, instance_id: str) -> Instance | None:
        """Read one file; None when it is not there (yet), not readable or not an instance."""
        try:
            with io.FileIO(self._file(instance_id, DATA)) as file:  # half the cost of Path's
                raw = file.readall()
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            return None
        instance = parse(raw)
        if instance and (instance.id, instance.service) == (instance_id, self.service):
            return instance
        return None

    def _sweep(self, instance_id: str) -> None:
        """Remove a dead instance's files, holding its lock so that no new owner loses them."""
        if not any(os.path.lexists(self._file(instance_id, each)) for each in (LOCK, DATA, TEMP)):
            return  # its owner, or another's sweep, has done it meanwhile
        try:
            # Not announced: otherwise every look would wake the watchers to look again.
            lock = LockFile.acquire(self._file(instance_id, LOCK), announce=False)
        except OSError:
            return
        if lock:
            # What can't be removed keeps its lock file: making it anew would wake them too.
            with contextlib.suppress(OSError):
                self.remove(instance_id, lock)

    def _file(self, instance_id: str, suffix: str) -> Path:
        return self.path / (instance_id + suffix)


def folders(path: Path) -> Iterator[Path]:
    """Yield the folders in ``path``; none when it does not exist."""
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield path / entry.name


@functools.lru_cache(maxsize=1024)
def parse(raw: bytes) -> Instance | None:
    """Read what :meth:`Folder.write` wrote; None when it is something else."""
    try:
        instance = Instance.from_dict(json.loads(raw))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    words = [instance.id, instance.service, instance.version, instance.zone, *instance.tags]
    pairs = [text for pair in instance.metadata.items() for text in pair]
    return instance if all(isinstance(text, str) for text in [*words, *pairs]) else None


def _file_id(info: os.stat_result) -> FileId:
    return info.st_dev, info.st_ino, info.st_mtime_ns
