"""On the real engine: a Consul and a service's image with networks of their own, and a proxy."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.docker.where.call import call
from tests.servers.docker_engine import DockerEngine
from tests.support.registrator import DockerProxy
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
WHERE = Path(__file__).parent / "where"
SOCKET = "/var/run/docker.sock"
CONSUL = "hashicorp/consul:1.22"
NOTHING: Mapping[str, str] = {}
PATIENCE = 90.0  # for a container to start on a machine that has much to do


class World:
    """Networks ``front``, with Consul and IPv6, and ``back``; and who calls, in both.

    Attributes:
        docker: the engine.
        registry: Consul for containers in ``front``.
        outside: the same Consul for this machine.
    """

    def __init__(self, docker: DockerEngine, folder: Path) -> None:
        self.docker = docker
        prefix = f"fd{secrets.token_hex(1)}:{secrets.token_hex(2)}:{secrets.token_hex(2)}::/64"
        self.front = docker.network("front", "--ipv6", "--subnet", prefix)
        self.back = docker.network("back")
        self._image = docker.image("where", context(folder), *build_arguments())
        self._start_consul()
        self.registry = "consul://consul:8500"
        self._start_caller()

    def _start_consul(self) -> None:
        agent = ("agent", "-dev", "-client", "::")
        where = (
            "--network",
            self.front,
            "--network-alias",
            "consul",
            "--publish",
            "127.0.0.1::8500",
        )
        self.docker.run("consul", *where, CONSUL, *agent)
        address = self.docker("port", self.docker.named("consul"), "8500/tcp")
        self.outside = f"consul://{address}"
        eventually(lambda: self._leads(f"http://{address}/v1/status/leader"), within=PATIENCE)

    def _leads(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return len(answer.read()) > 2
        except OSError:
            return False

    def _start_caller(self) -> None:
        host = ("--add-host", "host.test:host-gateway")
        self.docker.run("caller", "--network", self.front, *host, self._image, "sleep", "3600")
        self.docker("network", "connect", self.back, self.docker.named("caller"))

    def start(
        self,
        name: str,
        *options: str,
        run: tuple[str, ...] = (),
        network: str = "",
        also: str = "",
        registry: str = "",
    ) -> str:
        """Start the service and return the container's id.

        Args:
            name: of service and container.
            options: of ``meshkit run``, beside the registry.
            run: of ``docker run``.
            network: ``front`` unless given.
            also: a second network.
            registry: Consul within ``front`` unless given.
        """
        where = ("--network", network or self.front)
        told = ("meshkit", "run", "--registry", registry or self.registry)
        return self._start(name, (*where, *run), (*told, *options), also)

    def follow(
        self, name: str, section: str, *, also: str = "", instead: Mapping[str, str] = NOTHING
    ) -> str:
        """Start the service by what the page on addresses says, and return the container's id.

        Args:
            name: of service and container.
            section: of the page; it has one command.
            also: a second network.
            instead: what stands for the values of the example, by these.
        """
        text = (ROOT / "docs" / "addresses.md").read_text().partition(f"### {section}\n")[2]
        _, command, _ = text.split("```", 2)
        words = shlex.split(command)[2:]  # sh notest
        values = {"shop": self.front, "consul://127.0.0.1:8500": self.outside, **instead}
        words = [values.get(word, word) for word in words]
        at = words.index("users")
        assert words[:2] == ["docker", "run"]
        return self._start(name, words[2:at], words[at + 1 :], also)

    def _start(self, name: str, run: Sequence[str], command: Sequence[str], also: str) -> str:
        named = ("--env", f"NAME={name}")
        container = self.docker.create(name, *named, *run, self._image, *command)
        if also:
            self.docker("network", "connect", also, container)
        self.docker("start", container)
        return container

    def address(self, name: str, network: str, key: str = "IPAddress") -> str:
        """Return a container's address in a network, as the engine has given it."""
        path = f'(index .NetworkSettings.Networks "{network}").{key}'
        return self.docker("inspect", "--format", f"{{{{{path}}}}}", self.docker.named(name))

    def advertised(self, name: str) -> str:
        """Wait until the service says what it advertises, and return that."""

        def said() -> str:
            log = self.docker.logs(name)
            assert "meshkit: error" not in log, log
            found = [line["message"] for line in lines(log) if "advertising" in line["message"]]
            return found[0].removeprefix("advertising ") if found else ""

        return eventually(said, within=PATIENCE, every=0.2)

    def refused(self, name: str) -> tuple[int, str]:
        """Wait until the service has ended, and return its code and the one error of its log."""
        code = self.docker("wait", self.docker.named(name))
        log = self.docker.logs(name)
        assert "Traceback" not in log
        _, *errors = log.split("meshkit: error: ")
        assert len(errors) == 1, log
        return int(code), errors[0]

    def call(self, name: str) -> tuple[str, str]:
        """Call the service by its name from another container; return which hosts answer."""
        caller = ("exec", self.docker.named("caller"), "python", "call.py", self.registry, name)
        http, grpc = self.docker(*caller).split()
        return http, grpc

    async def call_from_outside(self, name: str) -> tuple[str, str]:
        """Call the service by its name from this machine."""
        return await call(self.outside, name)


def lines(log: str) -> list[dict[str, Any]]:
    """Return the lines of a log that are JSON."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


def context(folder: Path) -> Path:
    """Fill the folder with what the image is built of."""
    shutil.copytree(WHERE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("meshkit", "tests/protos"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (folder / "requirements.txt").write_text("\n".join(project["dependencies"]))
    return folder


def build_arguments() -> tuple[str, ...]:
    """Let the image be built from the index that is used here."""
    index = os.environ.get("PIP_INDEX_URL")
    return ("--build-arg", f"PIP_INDEX_URL={index}") if index else ()


@pytest.fixture(scope="module")
def world(docker_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    docker = DockerEngine(docker_program)
    try:
        yield World(docker, tmp_path_factory.mktemp("docker") / "image")
    finally:
        docker.clear()


@pytest.fixture
def name(docker: DockerEngine) -> str:
    """The name of the test's own service: other tests' containers are registered too."""
    return docker.named("web")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[DockerProxy]:
    proxy = DockerProxy(tmp_path)
    try:
        yield proxy
    finally:
        proxy.close()
