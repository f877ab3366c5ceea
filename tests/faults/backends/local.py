"""The embedded registry: a folder, and no server that could fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.faults.backends.base import Backend

NO_SERVER = "local:// has no server that could fail"


class LocalBackend(Backend):
    name = "local"
    forgets = 1.0
    absent = dict.fromkeys(
        (
            "registry restarted with its data",
            "registry hung for 20 s",
            "leader killed",
            "one node cut off",
            "instance cut off",
            "consumer cut off",
            "token revoked, then renewed",
            "certificate expired, then renewed",
        ),
        NO_SERVER,
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._data = folder / "registry"

    @property
    def notices_hang(self) -> float:
        return 15.0  # a lock tells of a death at once, but not of this

    @property
    def about(self) -> str:
        return "local://: a folder, no server"

    def url(self, addresses: Sequence[str] = ()) -> str:
        return f"local://?dir={self._data}"

    def registered(self, service: str) -> list[str]:
        shown = [json.loads(file.read_bytes()) for file in self._data.rglob(f"{service}/*.json")]
        return sorted(each["id"] for each in shown if each["status"] == "up")

    def empty(self) -> None:
        """Remove the folder in one step: services look after it and make it anew."""
        gone = self._data.rename(self.folder / "gone")
        shutil.rmtree(gone)
