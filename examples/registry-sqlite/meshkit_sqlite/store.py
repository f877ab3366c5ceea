"""Instances with a time to live in a SQLite file. Plain blocking code, for one thread."""

import json
import math
import sqlite3
import time
from pathlib import Path

from meshkit.model import Instance

BUSY_LIMIT = 2.0  # seconds to wait while another process writes
SCHEMA = """
CREATE TABLE IF NOT EXISTS instances (
    id TEXT PRIMARY KEY,
    service TEXT NOT NULL,
    body TEXT NOT NULL,
    expires REAL NOT NULL -- seconds since the epoch: all who share the file share a clock
)
"""

Version = tuple[int, int]


class Store:
    """Raises sqlite3.Error, and ValueError, KeyError or TypeError for a row that is no instance.

    SQLite tells a connection only of what *others* have written, so there are two: what is
    written by the one is news to the other.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._number = self._openings = 0
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None

    def put(self, instance: Instance, ttl: float) -> None:
        """Add or replace the instance; what has expired goes with it."""
        now = time.time()
        row = instance.id, instance.service, json.dumps(instance.to_dict()), now + ttl
        with self._connect()[1] as writer:
            writer.execute("DELETE FROM instances WHERE expires <= ?", (now,))
            writer.execute("INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?)", row)

    def extend(self, instance_id: str, ttl: float) -> bool:
        """Let the instance live for another ``ttl`` seconds. False when it does no more."""
        now = time.time()
        with self._connect()[1] as writer:
            changed = writer.execute(
                "UPDATE instances SET expires = ? WHERE id = ? AND expires > ?",
                (now + ttl, instance_id, now),
            )
        return changed.rowcount == 1

    def remove(self, instance_id: str) -> None:
        with self._connect()[1] as writer:
            writer.execute("DELETE FROM instances WHERE id = ?", (instance_id,))

    def version(self) -> Version:
        """Return another value after each change that anybody has made to the file."""
        (version,) = self._connect()[0].execute("PRAGMA data_version").fetchone()
        return self._openings, version

    def read(self, service: str) -> tuple[tuple[Instance, ...], float]:
        """Return a service's instances by id, and the time at which the first of them expires."""
        found = self._living("service = ?", service)
        until = min((expires for _, expires in found), default=math.inf)
        return tuple(instance for instance, _ in found), until

    def read_all(self) -> tuple[Instance, ...]:
        return tuple(instance for instance, _ in self._living("TRUE"))

    def close(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _living(self, condition: str, *values: str) -> list[tuple[Instance, float]]:
        sql = f"SELECT body, expires FROM instances WHERE {condition} AND expires > ? ORDER BY id"  # noqa: S608
        rows = self._connect()[0].execute(sql, (*values, time.time()))
        return [(Instance.from_dict(json.loads(body)), expires) for body, expires in rows]

    def _connect(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        """Return both connections, new ones if there is another file by this name.

        SQLite itself would go on with a file that was removed, alone.
        """
        number = self._file.stat().st_ino if self._file.exists() else 0
        if self._reader is None or self._writer is None or number != self._number:
            self.close()
            self._writer = sqlite3.connect(self._file, timeout=BUSY_LIMIT)
            self._writer.execute(SCHEMA)
            self._reader = sqlite3.connect(self._file, timeout=BUSY_LIMIT)
            self._number = self._file.stat().st_ino
            self._openings += 1  # a new file may have the old one's number
        return self._reader, self._writer
