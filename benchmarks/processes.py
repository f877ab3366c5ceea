"""Starting the measured programs, reading what the kernel counts for them, ending them by id."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from measure import BenchmarkError

HERE = Path(__file__).resolve().parent
SERVICES = HERE / "services"
STUBS = HERE.parent / "examples" / "users"
TICK = 1 / os.sysconf("SC_CLK_TCK")
STOP_LIMIT = 10.0


class Process:
    """A running program, started in the folder of services, and the file of what it prints."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], output: Path) -> None:
        self._command = " ".join(command[1:])
        self._output = output
        with output.open("wb") as file:
            self._popen = subprocess.Popen(
                command,
                cwd=SERVICES,
                env=environment(variables),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._popen.pid

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def check(self) -> None:
        """Raise BenchmarkError when it has ended."""
        if self._popen.poll() is not None:
            last = self.output.strip().rpartition("\n")[2] or "no output"
            raise BenchmarkError(f"{self._command} ended ({self._popen.returncode}): {last}")

    def stop(self) -> None:
        """End it with its children: politely, then by force."""
        family = descendants(self.pid)
        self._popen.terminate()
        try:
            self._popen.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def running(command: list[str], **variables: str) -> Iterator[Process]:
    """Start a program; end it on the way out."""
    with tempfile.TemporaryDirectory(prefix="meshkit-bench-") as folder:
        process = Process(command, variables, Path(folder) / "output")
        try:
            yield process
        finally:
            process.stop()


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return our environment, with the examples' stubs in reach and bytecode cached as usual."""
    inherited = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": str(STUBS), **variables}


def meshkit(*arguments: str) -> list[str]:
    """Return the command line of ``meshkit ARGUMENTS`` in this interpreter."""
    return [sys.executable, "-m", "meshkit", *arguments]


def uvicorn(app: str, port: int) -> list[str]:
    """Return the command line of a well-configured plain uvicorn.

    Without WebSockets on either side: whether their library happens to be installed would
    change uvicorn's start-up, and meshkit imports it only for a service that has such routes.
    """
    options = ["--http", "httptools", "--loop", "uvloop", "--ws", "none", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", app, *options, "--port", str(port)]


def descendants(pid: int) -> list[int]:
    """Return the ids of all living processes below this one."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the time its living threads have run, to the nanosecond (proc(5), schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def cpu_ticks(pid: int) -> int:
    """Return user and system time in clock ticks, those of ended threads included."""
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12])


def started_at(pid: int) -> float:
    """Return when it began, in seconds since boot, rounded down to a clock tick."""
    return int(_stat(pid)[19]) * TICK


def private_memory(pid: int) -> float:
    """Return the MiB that only this process holds (USS)."""
    return _memory(pid, "Private_Clean") + _memory(pid, "Private_Dirty")


def resident_memory(pid: int) -> float:
    """Return the MiB in memory, shared pages included (RSS)."""
    return _memory(pid, "Rss")


def _memory(pid: int, field: str) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(map(int, re.findall(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE))) / 1024


def _stat(pid: int) -> list[str]:
    """Return the fields after the name, which may hold blanks itself."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
