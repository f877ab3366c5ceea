"""The values of one namespace: a file per key in one folder, readable with ``cat``.

``config/orders/limit`` is the file ``config:orders:limit``: a line of JSON with key and revision,
then the value's bytes. Whoever writes holds the lock ``:lock`` alone, and replaces a file by one
rename; whoever lists shares it. A process killed at any moment leaves the old value or the new
one, and a free lock. (Nothing is forced to the disk: a power failure may lose the last writes.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from meshkit.errors import ConfigError
from meshkit.registry.kv import ABSENT, Entry, check_key
from meshkit.registry.local.lock import LockFile

SLASH = ":"  # in a file's name; no key has one
LOCK, REVISION, TEMP = ":lock", ":revision", ":temp"
NAME_LENGTH = 255  # of bytes, on about every file system
DIGEST = "~"  # between the beginning of a key that can't be a name, and its digest
NAME = re.compile(r"[A-Za-z0-9._-][A-Za-z0-9._:-]*(~[0-9a-f]{64})?")


class ValueFolder:
    """See the module. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lock(self, *, shared: bool) -> LockFile | None:
        """Take the lock for a look (shared) or a change; None when somebody else has it."""
        # Not announced: every look would wake the watchers to look again.
        return LockFile.acquire(self.path / LOCK, announce=False, shared=shared)

    def get(self, key: str) -> Entry | None:
        """Read one entry; it needs no lock, for a name leads to the old file or the new one."""
        return self._read(file_name(key))

    def list(self, prefix: str) -> tuple[tuple[Entry, ...], set[str]]:
        """Read the entries, sorted by key; also return the names of files that are not ours.

        To be called with the lock: a file that is just being replaced may be hidden from scandir.
        """
        found, strangers = [], set()
        for name in self._names():
            if not NAME.fullmatch(name):
                strangers.add(name)
            elif may_begin(name, prefix):
                if entry := self._read(name):
                    found.append(entry)
                else:
                    strangers.add(name)
        entries = (entry for entry in found if entry.key.startswith(prefix))
        return tuple(sorted(entries, key=lambda entry: entry.key)), strangers

    def put(self, key: str, value: bytes, expect: int | None) -> Entry | None:
        """Write an entry, with the lock; None when ``expect`` is not its revision."""
        old = self.get(key)
        if expect not in (None, old.revision if old else ABSENT):
            return None
        entry = Entry(key=key, value=value, revision=self._next_revision(old))
        temp = self.path / TEMP
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temp, flags, 0o600), "wb") as file:
            file.write(json.dumps({"key": key, "revision": entry.revision}).encode() + b"\n")
            file.write(value)
        temp.replace(self.path / file_name(key))
        return entry

    def delete(self, key: str, expect: int | None) -> bool:
        """Remove an entry, with the lock; False when there is none, or another than expected."""
        old = self.get(key)
        if old is None or expect not in (None, old.revision):
            return False
        self._next_revision(old)  # or one made anew could have it
        (self.path / file_name(key)).unlink()
        return True

    def _names(self) -> Iterator[str]:
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name not in (LOCK, REVISION, TEMP):
                    yield entry.name

    def _next_revision(self, old: Entry | None) -> int:
        """Count on, in a file of its own; the clock's microseconds where that has been removed."""
        fd = os.open(self.path / REVISION, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            last = 0
            with contextlib.suppress(ValueError):
                last = int(file.read(32))
            revision = 1 + max(last, old.revision if old else 0, time.time_ns() // 1000)
            file.seek(0)
            file.write(b"%020d\n" % revision)
        return revision

    def _read(self, name: str) -> Entry | None:
        """Read one file; None when it is not there, or not ours."""
        path = self.path / name
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return None
            entry = parse(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return entry if entry and file_name(entry.key) == name else None


def file_name(key: str) -> str:
    """Return the name of a key's file."""
    name = key.replace("/", SLASH)
    # Watchers take what ends in .tmp for a file that has not got its name yet.
    if len(name) <= NAME_LENGTH and not name.endswith(".tmp"):
        return name
    digest = DIGEST + hashlib.sha256(key.encode()).hexdigest()
    return name[: NAME_LENGTH - len(digest)] + digest


def may_begin(name: str, prefix: str) -> bool:
    """Whether the key of a file of this name may begin with the prefix."""
    shown, digest, _ = name.partition(DIGEST)
    text = prefix.replace("/", SLASH)
    return shown.startswith(text[: len(shown)] if digest else text)


def parse(raw: bytes) -> Entry | None:
    """Read what :meth:`ValueFolder.put` wrote; None when it is something else."""
    head, _, value = raw.partition(b"\n")
    try:
        fields = json.loads(head)
        key, revision = check_key(fields["key"]), fields["revision"]
    except (ValueError, KeyError, TypeError, RecursionError, ConfigError):
        return None
    if not isinstance(revision, int) or revision <= ABSENT:
        return None
    return Entry(key=key, value=value, revision=revision)
