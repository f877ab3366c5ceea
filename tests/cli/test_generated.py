"""A generated project, untouched: it passes its own checks, runs, and its README is true."""

import contextlib
import json
import os
import re
import shlex
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from meshkit import Mesh
from meshkit.cli.new import NEXT

LIMIT = 300  # seconds for one command, on a busy machine
PROJECTS = [
    ("orders", []),
    ("ledger", ["--grpc", "--no-http"]),
    ("payments-gateway", ["--grpc"]),
]
TESTS = {"orders": 8, "ledger": 5, "payments-gateway": 8 + 5}
CHECKS = ["pytest", "ruff check", "ruff format --check", "mypy"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return variables that make a virtual environment current; it sees what is installed here."""
    folder = tmp_path_factory.mktemp("environment")
    venv = folder / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=LIMIT)
    python = venv / "bin/python"
    paths = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "here.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in paths)
    )
    pip = venv / "bin/pip"
    pip.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -m pip "$@"\n')
    pip.chmod(0o755)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MESHKIT_")}
    return {
        **kept,
        "PATH": os.pathsep.join([str(venv / "bin"), str(Path(sys.executable).parent), os.defpath]),
        "MESHKIT_STATE_DIR": str(folder / "state"),
        "MYPY_CACHE_DIR": str(folder / "mypy"),
        "PYTEST_ADDOPTS": "-W error",
        # What is needed is installed here, so nothing has to be fetched.
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_NO_INDEX": "1",
    }


@pytest.fixture(scope="module", params=PROJECTS, ids=lambda project: project[0])
def project(
    request: pytest.FixtureRequest,
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    name: str
    options: list[str]
    name, options = request.param
    parent = tmp_path_factory.mktemp("projects")
    execute(["meshkit", "new", "service", name, *options], parent, environment)
    return parent / name


def execute(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert result.returncode == 0, f"{shlex.join(command)}:\n{result.stdout[-4000:]}"
    return result.stdout


@contextlib.contextmanager
def running(
    project: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run the service; yield the process and what it says when it is ready."""
    process = subprocess.Popen(
        ["meshkit", "run"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    limit = threading.Timer(LIMIT, process.kill)
    limit.start()
    try:
        yield process, said_when_ready(process)
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def said_when_ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("{") and (facts := json.loads(line)).get("event") == "ready":
            return dict(facts)
    pytest.fail(f"ended with {process.wait()} before it was ready:\n{''.join(said)}")


@pytest.mark.parametrize("command", [*CHECKS, "mypy --strict"])
def test_it_passes_its_own_checks(project: Path, environment: dict[str, str], command: str) -> None:
    output = execute(command.split(), project, environment)
    if command == "pytest":
        assert f" {TESTS[project.name]} passed in " in output


async def test_it_runs_and_is_called_by_name(
    project: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHKIT_STATE_DIR", environment["MESHKIT_STATE_DIR"])
    name = project.name
    with running(project, environment) as (process, facts):
        assert bool(facts["http"]) == (name != "ledger")
        assert bool(facts["grpc"]) == (name != "orders")
        async with Mesh("local://") as mesh:
            if facts["http"]:
                assert (await mesh.http(name).get("/items")).json() == []
            if facts["grpc"]:
                assert await list_items(mesh, name)() == b""
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=LIMIT)
            assert process.returncode == 0, output
            assert (await mesh.instances(name)).instances == ()


def list_items(mesh: Mesh, name: str) -> Any:
    service = {
        "ledger": "ledger.v1.Ledger",
        "payments-gateway": "payments_gateway.v1.PaymentsGateway",
    }

    def stub(channel: grpc.aio.Channel) -> Any:
        method = channel.unary_unary(
            f"/{service[name]}/ListItems",
            request_serializer=bytes,
            response_deserializer=bytes,
        )
        return lambda: method(b"")

    return mesh.grpc(stub, name)


def test_its_readme_is_true(project: Path, environment: dict[str, str], tmp_path: Path) -> None:
    readme = (project / "README.md").read_text()
    blocks = BLOCK.findall(readme)
    commands = [line for kind, text in blocks if kind == "sh" for line in text.splitlines()]
    (snippet,) = (text for kind, text in blocks if kind == "python")
    assert {*NEXT, *CHECKS} <= set(commands)
    for command in commands:
        # Which other tests run, and this one below.
        if command not in {*CHECKS, "meshkit run"} and not command.startswith("docker "):
            execute(shlex.split(command), project, environment)
    assert "`meshkit ps`" in readme
    with running(project, environment) as (process, facts):
        assert facts["instance"] in execute(["meshkit", "ps"], project, environment)
        # From elsewhere: the installation makes the project's packages known.
        assert "lamp" in execute(["python", "-c", snippet], tmp_path, environment)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, output
    assert project.name not in execute(["meshkit", "ps"], project, environment)
