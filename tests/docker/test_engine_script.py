"""scripts/docker-engine where an engine is there, and what it says where none can be had."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.docker_engine import DockerEngine
from tests.support.processes import ROOT

LIMIT = 600


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script with a cache of its own: what another run has started is not its business."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    return tmp_path / "scripts" / "docker-engine"


def run(script: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(script), *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.docker
def test_an_engine_that_is_there_is_used_and_left_alone(script: Path, docker: DockerEngine) -> None:
    version = docker("version", "--format", "{{.Server.Version}}")
    done = run(script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"docker-engine: ready: engine {version}, Compose ")
    assert docker("image", "inspect", "--format", "x", "python:3.13-slim") == "x"
    assert run(script, "--down").stdout == "docker-engine: no engine was started here\n"
    assert docker("version", "--format", "{{.Server.Version}}") == version


def test_only_an_engine_is_ended(script: Path) -> None:
    """The number of one that has ended may have been given to another process."""
    pidfile = script.parents[1] / ".cache" / "docker" / "dockerd.pid"
    pidfile.parent.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as other:
        pidfile.write_text(f"{other.pid}\n")
        assert run(script, "--down").returncode == 0
        assert other.poll() is None
        assert not pidfile.exists()
        other.kill()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no engine answers at DOCKER_HOST=unix:///nowhere"),
        (["--up"], "unknown option '--up'; known: --down"),
        (["--down", "now"], "unknown option 'now'; known: --down"),
    ],
)
def test_mistakes_are_named_in_one_line(script: Path, words: list[str], reason: str) -> None:
    done = run(script, *words, DOCKER_HOST="unix:///nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"docker-engine: {reason}\n"


def test_help_is_what_stands_above(script: Path) -> None:
    done = run(script, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Gives this machine a Docker engine")
    assert "scripts/docker-engine --down" in done.stdout
