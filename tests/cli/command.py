"""The ``meshkit`` command as users run it: a process in a folder, with an environment."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.support.processes import environment
from tests.support.waiting import eventually

HELLO = """
from meshkit import MeshService, get


class Hello(MeshService):
    name = "hello"
    version = "1.2.3"
    tags = ("v1",)

    @get("/hello")
    async def hello(self) -> str:
        return "world"
"""


def meshkit(
    *arguments: str, folder: Path, env: Mapping[str, str] | None = None, limit: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "meshkit", *arguments],
        cwd=folder,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )


class Command:
    """A ``meshkit`` command that runs until it is told to stop; stdout and stderr are kept."""

    def __init__(self, *arguments: str, folder: Path, env: Mapping[str, str] | None) -> None:
        self._out = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._err = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshkit", *arguments],
            cwd=folder,
            env=environment(env),
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    @property
    def out(self) -> str:
        return _content(self._out)

    @property
    def err(self) -> str:
        return _content(self._err)

    @property
    def all_ready(self) -> list[dict[str, Any]]:
        """The ready lines so far, whole ones only."""
        whole = self.out.rpartition("\n")[0].splitlines()
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line.get("event") == "ready"]

    def ready(self, number: int = 1) -> dict[str, Any]:
        """Wait for the ready line of this number (from 1) and return it."""
        eventually(
            lambda: len(self.all_ready) >= number or self.process.poll() is not None, within=30
        )
        assert len(self.all_ready) >= number, f"{self.process.poll()}\n{self.out}\n{self.err}"
        return self.all_ready[number - 1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            for line in self.all_ready:  # instances that were forked
                with contextlib.suppress(ProcessLookupError):
                    os.kill(line["pid"], signal.SIGKILL)
        self.process.wait(10)
        self._out.close()
        self._err.close()


def _content(file: IO[bytes]) -> str:
    # The offset is the child's too, and must not be moved.
    number = file.fileno()
    return os.pread(number, os.fstat(number).st_size, 0).decode()


@contextmanager
def running(
    *arguments: str, folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """A command that is ended with the block, however that ends."""
    command = Command(*arguments, folder=folder, env=env)
    try:
        yield command
    finally:
        command.close()
