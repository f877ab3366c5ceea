"""The container that this process runs in, as its Docker engine knows it."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from meshkit.docker import Docker, DockerNotFound, JsonObject
from meshkit.errors import ConfigError

MOUNTS = Path("/proc/self/mountinfo")
# Docker mounts these files from a folder that is named by the id of the container whose network is
# used, which is another one's with `--network container:other`: just the one whose ports are ours.
OWN_FILE = re.compile(
    r"^\d+ \d+ \S+ \S*/([0-9a-f]{64})/\S+ /etc/(?:hostname|hosts|resolv\.conf) ", re.MULTILINE
)
SHORT_ID = re.compile(r"[0-9a-f]{12}")


async def own_container(docker: Docker) -> JsonObject:
    """Return all about the container whose network this process has.

    Raises:
        ConfigError: this process is in none that the engine knows.
        DockerError: the engine can't be asked.
    """
    await docker.version()  # an engine that is away is what to say first
    found = await find_own_container(docker)
    if found is None:
        raise ConfigError(
            "advertise=docker: this process is in no container of Docker at "
            f"{docker.host.address}; mount the socket of the engine that runs it, or name address "
            "and port with --advertise-host and --advertise-port"
        )
    return found


async def find_own_container(docker: Docker) -> JsonObject | None:
    """Return the same, or None. Raises DockerError."""
    for each in possible_ids(_mounts(), socket.gethostname()):
        try:
            return await docker.inspect(each)
        except DockerNotFound:
            continue
    return None


def possible_ids(mounts: str, hostname: str) -> list[str]:
    """Return what may be our container's id, the likeliest first.

    Args:
        mounts: of the process, proc(5)'s mountinfo.
        hostname: Docker's own choice is the id's beginning.
    """
    ids = OWN_FILE.findall(mounts)
    if SHORT_ID.fullmatch(hostname):
        ids.append(hostname)
    return list(dict.fromkeys(ids))


def _mounts() -> str:
    return MOUNTS.read_text() if MOUNTS.exists() else ""
