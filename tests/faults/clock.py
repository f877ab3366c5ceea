"""The calendar clock of one process, moved while it runs; see clock.c."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """A clock for processes that are started with :attr:`env`."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock.so"
        self._offset = folder / "clock"
        self.jump(0)
        made = [*("-shared", "-fPIC", "-O1", "-o"), str(self._library), str(SOURCE), "-ldl"]
        subprocess.run([_compiler(), *made], check=True, capture_output=True)

    @property
    def env(self) -> Mapping[str, str]:
        """Variables for the process."""
        return {"LD_PRELOAD": str(self._library), "FAULTY_CLOCK": str(self._offset)}

    def jump(self, seconds: int) -> None:
        """Set how far it is ahead of (or, below zero, behind) the true time, at once."""
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))


def _compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    message = "no C compiler here, which moving a process's clock takes: install gcc"
    if os.environ.get("TEST_REQUIRE_SERVERS") == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
