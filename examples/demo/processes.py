"""The demo's services as separate processes: started, signalled, and surely ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

EXAMPLES = Path(__file__).parents[1]
CALL_TIMEOUT = 20.0  # seconds; the demo's own calls have as many
STOP_LIMIT = 5.0  # seconds from SIGTERM to SIGKILL
POLL = 0.02
TAIL = 12  # lines of a child's log that explain its end


class DemoError(Exception):
    """The demo can't go on; the message says why."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Child:
    """One ``meshkit run`` process.

    Attributes:
        label: its name in the demo and its tag in the registry.
        service: the example that it runs.
        fate: what the demo did to it; empty while it should be running.
        started_at, signalled_at, ended_at: time.monotonic() of each, as far as it happened.
    """

    label: str
    service: str
    process: subprocess.Popen[bytes]
    fate: str = ""
    started_at: float
    signalled_at: float | None = None
    ended_at: float | None = None

    @property
    def alive(self) -> bool:
        """Look whether it runs; the moment at which it is first seen dead is kept."""
        if self.process.poll() is None:
            return True
        self.ended_at = self.ended_at or time.monotonic()
        return False

    @property
    def state(self) -> str:
        """The process in a few words, for people."""
        if self.alive:
            return self.fate or "running"
        code = self.process.returncode
        end = f"exit {code}" if code >= 0 else signal.Signals(-code).name
        return f"{self.fate}: {end}" if self.fate else end

    def send(self, number: signal.Signals, fate: str) -> None:
        """Signal it, and expect its end from now on."""
        self.fate = fate
        self.signalled_at = time.monotonic()
        self.process.send_signal(number)


class Children:
    """All processes of the demo. Leaving the block ends them, however it is left.

    Ending them blocks the event loop on purpose: what never awaits can't be cancelled half-way.
    """

    def __init__(self, folder: Path, *, registry: str) -> None:
        self.all: list[Child] = []
        self._folder = folder
        self._environment = {
            **clean_environment(),
            "MESHKIT_STATE_DIR": str(folder / "state"),
            "MESHKIT_REGISTRY": registry,
            # A call that is slow on a busy machine is not a lost one.
            "MESHKIT_CALL_TIMEOUT": str(CALL_TIMEOUT),
            "PYTHONDONTWRITEBYTECODE": "1",  # no file is left, not even after kill -9
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, service: str) -> Child:
        """Run one more instance of an example, ports chosen by the system."""
        label = f"{service}-{1 + sum(child.service == service for child in self.all)}"
        started_at = time.monotonic()
        with (self._folder / f"{label}.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "meshkit", "run"],
                cwd=EXAMPLES / service,
                env={**self._environment, "MESHKIT_TAGS": label},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is the demo's to handle
            )
        child = Child(label=label, service=service, process=process, started_at=started_at)
        self.all.append(child)
        return child

    def check(self) -> None:
        """Raise DemoError, with the end of its log, when a process ended by itself."""
        for child in self.all:
            if not child.alive and not child.fate:
                raise DemoError(
                    f"{child.label} ended by itself ({child.state}); its log ends with:\n"
                    + self.tail(child.label)
                )

    def tail(self, label: str) -> str:
        """Return the last lines of a child's log, indented."""
        log = (self._folder / f"{label}.log").read_text(errors="replace")
        lines = log.splitlines()[-TAIL:] or ["(it is empty)"]
        return "\n".join(f"    {line}" for line in lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in self.all:
            if child.alive:
                child.send(signal.SIGTERM, child.fate or "stopped")
        limit = time.monotonic() + STOP_LIMIT
        while any(child.alive for child in self.all) and time.monotonic() < limit:
            time.sleep(POLL)
        for child in self.all:
            if child.alive:
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()


def clean_environment() -> dict[str, str]:
    """Our environment without what would make a service differ from its defaults."""
    ours = ("MESHKIT_", "USERS_", "ORDERS_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and name != "PORT"
    }
