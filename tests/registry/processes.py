"""The tests' side of nursery.py: start processes, tell them what to do, kill them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.support.waiting import eventually


class Nursery:
    """See nursery.py. Every process it starts ends with the test."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("nursery.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._pids: dict[str, int] = {}

    def spawn(self, name: str, url: str = "") -> int:
        self._pids[name] = int(self._ask(f"spawn {name} {url or self._url}"))
        return self._pids[name]

    def tell(self, name: str, *command: object) -> str:
        """Have one process do something; return its answer."""
        return self._ask(" ".join(map(str, [name, *command])))

    def kill(self, name: str) -> None:
        """Kill -9, and wait until it is gone."""
        pid = self._pids.pop(name)
        os.kill(pid, 9)
        eventually(lambda: not is_alive(pid))

    def close(self) -> None:
        """End the nursery, and with it all of its processes."""
        self._stream(self._process.stdin).close()
        try:
            assert self._process.wait(timeout=15) == 0
            eventually(lambda: not any(map(is_alive, self._pids.values())))
        finally:
            self._process.kill()
            self._process.wait()
            self._stream(self._process.stdout).close()

    def _ask(self, line: str) -> str:
        stdin, stdout = self._stream(self._process.stdin), self._stream(self._process.stdout)
        stdin.write(f"{line}\n")
        stdin.flush()
        answer = stdout.readline().rstrip("\n")
        assert answer, f"no answer to {line!r}"
        return answer

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream
        return stream


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
