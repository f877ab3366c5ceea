"""The last good list on disk, so that a consumer can start while the registry is gone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path

from meshkit.errors import ConfigError
from meshkit.model import Instance, Snapshot
from meshkit.state import private_dir, state_dir

log = logging.getLogger("meshkit.discovery")


class SnapshotCache:
    """Snapshots of one registry, one file per service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._failed = False

    @classmethod
    def of(cls, registry_url: str) -> SnapshotCache | None:
        """Return the cache of this registry, or None (and one log line) where none can be had."""
        digest = hashlib.sha256(registry_url.encode()).hexdigest()[:16]
        try:
            folder = state_dir() / "snapshots" / digest
            private_dir(folder)
        except ConfigError as error:
            log.warning("lists are not kept on disk: %s", error)
            return None
        return cls(folder)

    def load(self, service: str) -> Snapshot | None:
        """Return the saved list, marked stale, or None when there is no readable one."""
        try:
            data = json.loads(self._path(service).read_bytes())
            instances = tuple(Instance.from_dict(each) for each in data["instances"])
            read_at = float(data["read_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Snapshot(service=service, instances=instances, stale=True, read_at=read_at)

    def save(self, snapshot: Snapshot) -> None:
        """Replace the saved list. A full disk costs one log line and nothing else."""
        data = {
            "read_at": snapshot.read_at,
            "instances": [instance.to_dict() for instance in snapshot.instances],
        }
        try:
            self._replace(self._path(snapshot.service), json.dumps(data).encode())
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("the list of %s is not kept on disk: %s", snapshot.service, error)
            self._failed = True

    def _path(self, service: str) -> Path:
        return self._folder / f"{service}.json"

    def _replace(self, path: Path, content: bytes) -> None:
        handle, temporary = tempfile.mkstemp(dir=self._folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
