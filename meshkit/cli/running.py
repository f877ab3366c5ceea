"""Which services run here, and where each reaches itself: one small file per process.

``meshkit run`` writes it in the state folder, so that ``meshkit healthcheck`` finds a service on
whatever port it was given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from meshkit.errors import ConfigError
from meshkit.state import private_dir, state_dir

log = logging.getLogger("meshkit")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that is up.

    Attributes:
        instance: its id.
        pid: its process, as seen from here.
        started: when that began, see :func:`started`: a process id is used again, above all in a
            container that is restarted with its files.
        http, grpc: ``host:port`` on which it listens, for callers here; empty without.
    """

    instance: str
    pid: int
    started: int
    http: str = ""
    grpc: str = ""


@contextlib.contextmanager
def noted(instance: str, listening: Mapping[str, object]) -> Iterator[None]:
    """Let others here know of this process for as long as the block runs."""
    running = Running(
        instance=instance,
        pid=os.getpid(),
        started=started(os.getpid()),
        **{transport: str(endpoint) for transport, endpoint in listening.items()},
    )
    file = None
    try:
        file = _folder() / f"{_host()}-{running.pid}.json"
        part = file.with_suffix(".part")
        part.write_text(json.dumps(dataclasses.asdict(running)))
        part.replace(file)
    except (ConfigError, OSError) as error:  # such as a read-only file system
        log.warning("meshkit healthcheck won't find this service by itself: %s", error)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


def running_here() -> list[Running]:
    """Return the services that run in this container, or on this machine outside of any.

    Raises:
        ConfigError: the state folder can't be used.
    """
    found = []
    for file in sorted(_folder().glob(f"{_host()}-*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):  # half gone, or not ours
            running = Running(**json.loads(file.read_text()))
            if _alive(running):
                found.append(running)
            else:
                file.unlink(missing_ok=True)
    return found


def _folder() -> Path:
    folder = state_dir() / "running"
    private_dir(folder)
    return folder


def _host() -> str:
    """Containers that share a state folder have host names of their own."""
    return socket.gethostname().replace("/", "_")


def _alive(running: Running) -> bool:
    try:
        os.kill(running.pid, 0)
    except OSError:  # nobody, or another user's
        return False
    return started(running.pid) == running.started


def started(pid: int) -> int:
    """Return when a process began, in clock ticks since the boot; 0 where /proc can't tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])  # starttime, proc(5)
