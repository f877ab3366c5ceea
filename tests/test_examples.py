"""The examples as complete projects: what their READMEs say works."""

import ast
import filecmp
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
CACHES = ("__pycache__", ".*_cache", "*.egg-info")
PROJECTS = ("users", "orders")
LIMIT = 120


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of both projects side by side, so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("examples")
    for name in PROJECTS:
        shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns(*CACHES))
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A shell's environment in which this Python and its tools are found, and no settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MESHKIT_")}
    return {
        **clean,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '')}",
        "MESHKIT_STATE_DIR": str(tmp_path / "state"),
        "MYPY_CACHE_DIR": str(EXAMPLES.parent / ".mypy_cache" / "examples"),
        "PYTHONUNBUFFERED": "1",
    }


def blocks(project: str, section: str, language: str) -> list[str]:
    """Return the fenced blocks of one language in one section of a README."""
    text = (EXAMPLES / project / "README.md").read_text()
    found = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{project}/README.md has no section {section!r}"
    return re.findall(rf"^```{language}\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def commands(project: str, section: str) -> list[str]:
    return [line for block in blocks(project, section, "sh") for line in block.splitlines()]


def run(command: str | list[str], folder: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        shlex.split(command) if isinstance(command, str) else command,
        check=False,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert result.returncode == 0, f"{command}: exit {result.returncode}\n{result.stdout}"
    return result.stdout


@contextmanager
def running(project: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run the project by its README's command until the block ends, then as Ctrl-C ends it."""
    (command,) = commands(project.name, "Run")
    process = subprocess.Popen(
        shlex.split(command),
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    assert "Traceback" not in errors, errors
    assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("project", PROJECTS)
def test_the_checks_of_the_readme_pass(
    project: str, projects: Path, environment: dict[str, str]
) -> None:
    found = commands(project, "Check")
    assert found == ["pytest", "ruff check", "ruff format --check", "mypy"]
    for command in found:
        output = run(command, projects / project, environment)
        if command == "pytest":
            assert re.search(r"\d+ passed", output), output
            assert "skipped" not in output


@pytest.mark.slow
def test_the_programs_of_the_readmes_print_what_they_say(
    projects: Path, environment: dict[str, str]
) -> None:
    with (
        running(projects / "users", environment),
        running(projects / "orders", environment),
    ):
        wait_until_registered(projects, environment)
        for project in PROJECTS:
            (program,) = blocks(project, "Run", "python")
            (expected,) = blocks(project, "Run", "text")
            printed = run([sys.executable, "-c", program], projects / project, environment)
            assert printed == expected


def wait_until_registered(folder: Path, environment: dict[str, str]) -> None:
    program = """
import asyncio
from meshkit import Mesh

async def main():
    async with asyncio.timeout(60), Mesh() as mesh:
        for service in ("users", "orders"):
            while not (await mesh.instances(service)).up:
                await asyncio.sleep(0.05)

asyncio.run(main())
"""
    run([sys.executable, "-c", program], folder, environment)


@pytest.mark.parametrize(
    ("project", "section"),
    [("users", "Change the gRPC interface"), ("orders", "Follow the gRPC interface of users")],
)
def test_the_stubs_are_what_protoc_generates(
    project: str, section: str, projects: Path, environment: dict[str, str]
) -> None:
    (command,) = commands(project, section)
    run(command, projects / project, environment)
    committed, generated = (root / project / "users_api" for root in (EXAMPLES, projects))
    assert interface(generated) == interface(committed)
    # Another release of the generator words the same interface in its own way.
    if release(generated) == release(committed):
        for name in ("users_pb2.py", "users_pb2.pyi", "users_pb2_grpc.py"):
            assert (generated / name).read_text() == (committed / name).read_text(), name


def interface(stubs: Path) -> object:
    """Return the descriptor in the generated code, as bytes, and the methods of the stub."""
    messages = (stubs / "users_pb2.py").read_text()
    services = (stubs / "users_pb2_grpc.py").read_text()
    (descriptor,) = re.findall(r"AddSerializedFile\((b'.*')\)", messages)
    return ast.literal_eval(descriptor), re.findall(r"'/(users\.v1\.Users/\w+)'", services)


def release(stubs: Path) -> str:
    text = (stubs / "users_pb2_grpc.py").read_text()
    (found,) = re.findall(r"^GRPC_GENERATED_VERSION = '(.*)'$", text, re.MULTILINE)
    return str(found)


def test_the_dependencies_are_as_new_as_the_stubs_demand() -> None:
    stubs = EXAMPLES / "users" / "users_api"
    (protobuf,) = re.findall(
        r"Protobuf Python Version: (\S+)", (stubs / "users_pb2.py").read_text()
    )
    for project in PROJECTS:
        declared = (EXAMPLES / project / "pyproject.toml").read_text()
        assert f'"grpcio>={release(stubs)}"' in declared
        assert f'"protobuf>={protobuf}"' in declared


def test_orders_has_the_stubs_of_users() -> None:
    ours, theirs = (EXAMPLES / project / "users_api" for project in PROJECTS)
    names = [path.name for path in theirs.glob("*.py*")]
    assert len(names) == 4
    same, different, missing = filecmp.cmpfiles(ours, theirs, names, shallow=False)
    assert (sorted(same), different, missing) == (sorted(names), [], [])
