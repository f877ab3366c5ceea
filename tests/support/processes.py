"""Services as real processes: ``meshkit run`` with its ready line read, ended by pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


class ServiceProcess:
    """One ``meshkit run`` process.

    Attributes:
        facts: what it said when it was up, empty before.
        lines: its whole output so far, stdout and stderr together.
    """

    def __init__(
        self, spec: str, *arguments: str, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.facts: dict[str, Any] = {}
        self.all_facts: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "meshkit", "run", spec, "--log-format", "json", *arguments],
            cwd=folder,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def url(self) -> str:
        return str(self.facts["http"])

    @property
    def instance(self) -> str:
        return str(self.facts["instance"])

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def ready(self) -> ServiceProcess:
        eventually(lambda: self.facts or self.code is not None, within=30)
        assert self.facts, f"ended with {self.code}:\n{self.output}"
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, limit: float = 30.0) -> int:
        code = self._process.wait(limit)
        self._reader.join(5)
        return code

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait(10)
        self._reader.join(5)
        if self._process.stdout:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.lines.append(line)
            if '"event": "ready"' in line:
                facts = json.loads(line)
                self.all_facts.append(facts)
                self.facts = facts


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without settings of the machine's own, plus ``extra``."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key == "MESHKIT_STATE_DIR" or not key.startswith(("MESHKIT_", "CONSUL_", "PORT"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(extra or {})}


class Processes:
    """Starts services in one folder and ends them all."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder = folder
        self.registry = registry
        self.started: list[ServiceProcess] = []

    def start(
        self, spec: str, *arguments: str, env: Mapping[str, str] | None = None
    ) -> ServiceProcess:
        """Start one without waiting for it."""
        process = ServiceProcess(
            spec, "--registry", self.registry, *arguments, folder=self.folder, env=env
        )
        self.started.append(process)
        return process

    def start_all(self, spec: str, count: int) -> list[ServiceProcess]:
        """Start several side by side and wait until all are up."""
        processes = [self.start(spec) for _ in range(count)]
        return [process.ready() for process in processes]

    def close(self) -> None:
        for process in self.started:
            process.close()


@contextmanager
def processes(folder: Path, registry: str) -> Iterator[Processes]:
    """Services that end with the block, however it ends."""
    running = Processes(folder, registry)
    try:
        yield running
    finally:
        running.close()
