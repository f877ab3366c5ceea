"""``docker compose`` and ``docker``, for one project of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

COMMAND_LIMIT = 120.0
UP_LIMIT = 900.0  # with a build, on a machine that is busy with other things
DOWN_LIMIT = 180.0
TAKEN = (
    re.compile(r"Bind for (\S+):(\d+) failed: port is already allocated"),
    re.compile(r"listen tcp\d? (\S+):(\d+): bind: address already in use"),
)


class DemoError(Exception):
    """The demo can't go on; the message is one line that says why."""


class Compose:
    """Runs commands on one Compose project.

    Args:
        folder: that of docker-compose.yml.
        environment: names the project and its profile.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.project = environment["COMPOSE_PROJECT_NAME"]
        self._folder = folder
        self._environment = dict(environment)
        self._began = False

    async def up(self) -> None:
        """Build the images and start everything."""
        self._began = True
        await self("up", "--build", "--detach", "--quiet-pull", limit=UP_LIMIT)

    async def scale(self, service: str, count: int) -> None:
        """Run so many containers of a service; the others are left alone."""
        options = ("--detach", "--no-deps", "--no-recreate", "--scale", f"{service}={count}")
        await self("up", *options, service)

    async def containers(self, *services: str, running: bool = True) -> list[str]:
        """Return the ids of the containers of these services, oldest numbers first."""
        options = () if running else ("--all",)
        return (await self("ps", "--quiet", *options, *services)).split()

    async def exec(self, service: str, *command: str) -> str:
        """Run a command in a container of the service; return what it prints."""
        return await self("exec", "-T", service, *command)

    async def __call__(self, *arguments: str, limit: float = COMMAND_LIMIT) -> str:
        """Run ``docker compose``; return what it prints. Raises DemoError."""
        return await self.docker("compose", *arguments, limit=limit)

    async def docker(self, *arguments: str, limit: float = COMMAND_LIMIT) -> str:
        """Run ``docker``; return what it prints. Raises DemoError."""
        process = await self._start(*arguments)
        try:
            async with asyncio.timeout(limit):
                output, errors = await process.communicate()
        except TimeoutError:
            raise DemoError(f"docker {' '.join(arguments)}: not done in {limit:.0f} s") from None
        finally:
            await end(process)
        if process.returncode:
            raise DemoError(f"docker {' '.join(arguments)}: {explain(errors.decode())}")
        return output.decode()

    async def follow(self, container: str) -> asyncio.subprocess.Process:
        """Start following what a container prints, from its beginning."""
        return await self._start("logs", "--follow", container)

    def down(self) -> None:
        """Remove all that was made. Never awaits, so that it can't be cancelled half-way."""
        if self._began:
            options = ("--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "40")
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    ["docker", "compose", "down", *options],
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                    timeout=DOWN_LIMIT,
                    process_group=0,
                )

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                "docker",
                *arguments,
                cwd=self._folder,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=1 << 20,
                process_group=0,  # Ctrl-C is the demo's to handle
            )
        except FileNotFoundError:
            raise DemoError("there is no docker here: install it, with Compose v2") from None


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill the process, and what it has started; nothing when it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def explain(errors: str) -> str:
    """Say in one line what docker's errors mean, and what to do."""
    for pattern in TAKEN:
        if found := pattern.search(errors):
            host, port = found.groups()
            return (
                f"port {port} on {host} is taken: stop what holds it, or choose another one "
                "for the web UI, as in CONSUL_PORT=8501"
            )
    if "permission denied" in errors and "docker.sock" in errors:
        return "no permission to use the engine: run it as a user of the group docker"
    if "Cannot connect to the Docker daemon" in errors:
        return "no engine answers: start it, or name it by DOCKER_HOST"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else "it failed without a word"
