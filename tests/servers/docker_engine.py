"""The machine's Docker engine: containers, networks and images of the tests' own."""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.servers.programs import REQUIRE, find_program

COMMAND_LIMIT = 300.0
# In this order: what is in use can't be removed.
REMOVAL = {"container": ("--force", "--volumes"), "network": (), "image": ("--force",)}
HOW_TO_GET = "no Docker engine here: run scripts/docker-engine, or name one by DOCKER_HOST"


class DockerEngine:
    """Runs ``docker`` and removes what was made through it; others' things are left alone.

    Attributes:
        prefix: of all names that are given here, this fixture's alone.
    """

    def __init__(self, program: Path) -> None:
        self.program = program
        self.prefix = f"meshkit-test-{secrets.token_hex(4)}"
        self._made: list[tuple[str, str]] = []

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what the command prints; an error of it fails the test."""
        done = subprocess.run(
            [str(self.program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT,
            input=stdin,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def run(self, name: str, *arguments: str) -> str:
        """Start a container in the background and return its id. ``arguments``: of docker run."""
        return self("run", "--detach", "--name", self._own("container", name), *arguments)

    def create(self, name: str, *arguments: str) -> str:
        """The same without starting it, so that it may be connected to more networks."""
        return self("create", "--name", self._own("container", name), *arguments)

    def network(self, name: str, *options: str) -> str:
        """Make a network and return its name."""
        network = self._own("network", name)
        self("network", "create", *options, network)
        return network

    def image(self, name: str, folder: Path, *options: str) -> str:
        """Build an image of the Dockerfile in this folder and return its name."""
        image = self._own("image", name)
        self("build", "--quiet", "--tag", image, *options, str(folder))
        return image

    def named(self, name: str) -> str:
        """Return the name by which the engine knows what is called so here."""
        return f"{self.prefix}-{name}"

    def logs(self, name: str) -> str:
        """Return what a container has printed, of both streams."""
        command = [str(self.program), "logs", self.named(name)]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        ).stdout

    def clear(self) -> None:
        """Remove all that was made."""
        for kind, options in REMOVAL.items():
            names = [name for each, name in self._made if each == kind]
            if names:  # in one command: the engine removes them side by side
                command = [str(self.program), kind, "rm", *options, *names]
                subprocess.run(command, capture_output=True, check=False)
        self._made.clear()

    def _own(self, kind: str, name: str) -> str:
        self._made.append((kind, self.named(name)))
        return self.named(name)


def require_docker() -> Path:
    """Return the program of a running engine; else skip, or fail if servers are required."""
    program = find_program("docker")
    if program is not None:
        command = [str(program), "version", "--format", "{{.Server.Version}}"]
        if not subprocess.run(command, capture_output=True, check=False).returncode:
            return program
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(HOW_TO_GET, pytrace=False)
    pytest.skip(HOW_TO_GET)
