"""The Dockerfile that `meshkit new service` writes: built as its README says, and run."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import meshkit
from tests.servers.docker_engine import DockerEngine
from tests.support.processes import ROOT
from tests.support.waiting import eventually
from tests.test_docs import BLOCK

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.xdist_group("docker-compose")]

LIMIT = 120.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """meshkit as a wheel, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def image(docker: DockerEngine, wheel: Path, tmp_path: Path) -> str:
    """A generated service with both transports, as an image."""
    assert meshkit("new", "service", "hello", "--grpc", folder=tmp_path).returncode == 0
    project = tmp_path / "hello"
    (project / "wheels").mkdir()
    (project / "wheels" / wheel.name).write_bytes(wheel.read_bytes())
    return docker.image("hello", project)


def inspect(docker: DockerEngine, name: str, part: str) -> Any:
    return json.loads(docker("inspect", "--format", f"{{{{json .{part}}}}}", docker.named(name)))


def test_it_is_healthy_without_rights_and_leaves_in_order(docker: DockerEngine, image: str) -> None:
    docker.run("up", "--health-interval", "1s", image)
    eventually(lambda: inspect(docker, "up", "State.Health.Status") == "healthy", within=LIMIT)
    container = docker.named("up")
    assert docker("exec", container, "meshkit", "healthcheck").startswith("ready: hello-")
    assert docker("exec", container, "id", "-u") == "10001"
    assert sorted(docker("exec", container, "ls", "-A").split()) == [
        "hello",
        "hello_api",
        "pyproject.toml",
    ]
    docker("stop", "--time", "40", container)
    assert inspect(docker, "up", "State.ExitCode") == 0
    assert "stopped" in docker.logs("up")


def test_one_that_is_stopped_while_it_starts_is_not_waited_for(
    docker: DockerEngine, image: str
) -> None:
    """As process 1 of its container it is told to end only if it has said that it wants to be."""
    docker.run("young", image)
    time.sleep(0.3)  # imports
    docker("stop", "--time", "60", docker.named("young"))
    assert inspect(docker, "young", "State.ExitCode") in (0, 143)  # 137: killed, after 60 s


def test_a_change_of_the_code_installs_nothing_anew(
    docker: DockerEngine, wheel: Path, tmp_path: Path, image: str
) -> None:
    service = tmp_path / "hello" / "hello" / "service.py"
    service.write_text(f"{service.read_text()}\n# changed\n")
    before = layers(docker, image)
    changed = docker.image("hello-2", tmp_path / "hello")
    after = layers(docker, changed)
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


def layers(docker: DockerEngine, image: str) -> list[str]:
    found: list[str] = json.loads(docker("inspect", "-f", "{{json .RootFS.Layers}}", image))
    return found


def test_what_its_readme_shows_is_right(docker: DockerEngine, image: str, tmp_path: Path) -> None:
    readme = (tmp_path / "hello" / "README.md").read_text()
    shown = [line for kind, _, text in BLOCK.findall(readme) for line in text.splitlines()]
    build, run = (shlex.split(line) for line in shown if line.startswith("docker "))
    assert build == ["docker", "build", "-t", "hello", "."]
    assert run == ["docker", "run", "--rm", "hello"]
    assert "MESHKIT_REGISTRY" in readme
    docker.run("elsewhere", "--env", "MESHKIT_REGISTRY=nowhere://", image)
    eventually(lambda: not inspect(docker, "elsewhere", "State.Running"), within=LIMIT)
    assert "unknown registry scheme 'nowhere://'" in docker.logs("elsewhere")
