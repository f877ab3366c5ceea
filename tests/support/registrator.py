"""The registrator as a process beside the real Docker engine, and what it makes of a registry."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from meshkit.model import Instance, Status
from meshkit.registry import open_registry
from tests.cli.command import Command, meshkit, running
from tests.servers.docker_engine import DockerEngine
from tests.support.waiting import eventually

IMAGE = "python:3.13-slim"
SOCKET = "/var/run/docker.sock"
LIMIT = 60.0
# Ends only when it was told to, and then only when the file is there.
LINGER = """
import os, signal, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("ready", flush=True)
while not (told and os.path.exists("/tmp/go")):
    time.sleep(0.02)
"""
LINGERING = (IMAGE, "python", "-c", LINGER)
SERVING = (IMAGE, "python", "-m", "http.server", "8000")


@contextlib.contextmanager
def registrator(
    url: str,
    *arguments: str,
    folder: Path,
    own: str = "",
    env: Mapping[str, str] | None = None,
) -> Iterator[Command]:
    """``meshkit registrator`` with the block; of containers with the label ``own`` if it is given.

    Others start and end theirs meanwhile, with whatever labels.
    """
    only = ("--only-label", f"own={own}") if own else ()
    with running("registrator", *only, *arguments, url, folder=folder, env=env) as command:
        try:
            yield command
        except AssertionError as error:
            error.add_note(f"the registrator ({command.process.poll()}) said:\n{command.err}")
            raise
        assert "Traceback" not in command.err, command.err


def finished(url: str, *arguments: str, folder: Path, own: str) -> subprocess.CompletedProcess[str]:
    """Run ``meshkit registrator`` to its end."""
    only = ("--only-label", f"own={own}")
    return meshkit("registrator", *only, *arguments, url, folder=folder)


def offering(name: str, *options: str) -> tuple[str, ...]:
    """Options of docker run: offer port 8000 as this service."""
    labels = ("--label", f"SERVICE_NAME={name}", "--label", f"own={name}")
    return (*labels, "--publish", "127.0.0.1::8000", *options)


def linger(docker: DockerEngine, name: str, *options: str) -> str:
    """Start a container that ends only when it is to, ready to be told; return its id."""
    container = docker.run(name, *options, *LINGERING)
    eventually(lambda: "ready" in docker.logs(name), within=LIMIT, every=0.1)
    return container


def instances(url: str, service: str) -> dict[str, Instance]:
    """Return what a consumer of meshkit's sees of the service."""

    async def read() -> tuple[Instance, ...]:
        async with open_registry(url) as registry:
            return (await registry.instances(service)).instances

    return {each.id: each for each in asyncio.run(read())}


def statuses(url: str, service: str) -> list[Status]:
    """Return the statuses of the service's instances."""
    return [each.status for each in instances(url, service).values()]


def shows(url: str, service: str, *wanted: Status) -> None:
    """Wait until the service has instances with just these statuses."""
    eventually(lambda: sorted(statuses(url, service)) == sorted(wanted), within=LIMIT, every=0.1)


class DockerProxy:
    """A Unix socket that leads to Docker's, and can be cut.

    Attributes:
        path: where it listens.
        accepted: how many connections there were.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "docker.sock"
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.listen()

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.path}"}

    def listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Stop listening, as when the engine is down."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.path.unlink(missing_ok=True)

    def cut(self) -> None:
        """Break all connections."""
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.refuse()
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(SOCKET)
            except OSError:
                return
            self.accepted += 1
            self._open |= {client, engine}
            for ends in ((client, engine), (engine, client)):
                threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            self._open.discard(each)
            each.close()
