"""Every command and every example that README and docs show is run."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Consul
from tests.servers.docker_engine import DockerEngine
from tests.support.fleet import SLEEPING
from tests.support.processes import ROOT, environment

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```(\w+)( notest)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text())
    return [text for kind, notest, text in found if kind == language and not notest]


def commands(page: Path) -> list[str]:
    lines = [
        line.partition("  #")[0].strip()
        for block in blocks(page, "sh")
        for line in block.splitlines()
    ]
    return [line for line in lines if line and not line.startswith("#")]


class Terminal:
    """Runs a page's commands in order: services stay in the background, the rest must succeed."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder = folder
        self.output = ""
        self._registry = registry
        self._running: list[subprocess.Popen[str]] = []

    def run(self, line: str) -> None:
        words = shlex.split(line.replace("consul://127.0.0.1:8500", self._registry))
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "make":
            self._make(words[1])
        elif words[:2] == ["meshkit", "run"] and "--help" not in words:
            self._serve(words)
        else:
            assert words[0] == "meshkit", f"how is {line!r} to be run?"
            self.finish([sys.executable, "-m", *words])

    def finish(self, command: list[str]) -> None:
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        self.output = ended.stdout

    def close(self) -> None:
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            assert process.wait(40) == 0
            assert process.stdout
            process.stdout.close()

    def _make(self, target: str) -> None:
        """`make test` runs this very test; that its target exists and what it runs is checked."""
        command = ["make", "--dry-run", "--always-make", target]
        planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        runs = {
            "demo": "examples/demo",
            "demo-docker": "examples/docker/demo",
            "test": "-m pytest",
        }[target]
        assert runs in planned.stdout

    def _serve(self, words: list[str]) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=self.folder,
            env=environment({"MESHKIT_LOG_FORMAT": "json"}),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        assert process.stdout
        count = int(words[words.index("--instances") + 1]) if "--instances" in words else 1
        for _ in range(count):
            assert '"event": "ready"' in process.stdout.readline()


@pytest.fixture
def terminal(tmp_path: Path, consul: Consul) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, consul.url)
    yield terminal
    terminal.close()


@pytest.mark.consul
def test_the_commands_of_the_readme(terminal: Terminal) -> None:
    page = ROOT / "README.md"
    lines = commands(page)
    assert "make demo" in lines
    assert "make test" in lines
    for line in lines:
        terminal.run(line)
        if line == "meshkit ps":
            assert "hello" in terminal.output
            (script,) = (text for text in blocks(page, "python") if "mesh.http" in text)
            terminal.finish([sys.executable, "-c", script])
            assert "lamp" in terminal.output


@pytest.mark.consul
def test_the_commands_of_the_running_page(terminal: Terminal) -> None:
    terminal.run("meshkit new service hello")
    terminal.run("cd hello")
    lines = commands(ROOT / "docs" / "running.md")
    assert len(lines) >= 4
    for line in lines:
        terminal.run(line)


@pytest.mark.consul
def test_the_commands_of_the_configuration_page(terminal: Terminal) -> None:
    lines = commands(ROOT / "docs" / "config.md")
    assert len(lines) >= 7
    for line in lines:
        terminal.run(line)
        if line.startswith("meshkit config get"):
            assert terminal.output == "20\n"
        if line.startswith("meshkit config ls"):
            assert terminal.output.count(" = ") == 3


@pytest.mark.consul
def test_the_commands_of_the_routing_page(terminal: Terminal) -> None:
    lines = commands(ROOT / "docs" / "routing.md")
    assert len(lines) >= 5
    for line in lines:
        terminal.run(line)
        if line == "meshkit routes ls":
            assert "users 50 %, users@canary 50 %" in terminal.output


@pytest.mark.consul
def test_the_commands_of_the_server_page(terminal: Terminal) -> None:
    terminal.run("meshkit new service hello")
    terminal.run("cd hello")
    (line,) = commands(ROOT / "docs" / "server.md")
    terminal.run(line)


@pytest.mark.docker
@pytest.mark.consul
def test_the_commands_of_the_registrator_page(terminal: Terminal, docker: DockerEngine) -> None:
    docker.run("web", "-p", "127.0.0.1::80", "--label", "SERVICE_NAME=shop", *SLEEPING)
    lines = commands(ROOT / "docs" / "registrator.md")
    assert len(lines) == 3
    for line in lines:
        terminal.run(line)
        if "--dry-run" in line:
            assert docker.named("web") in terminal.output
    terminal.run(lines[0])
    assert docker.named("web") not in terminal.output  # it is registered


@pytest.mark.docker
def test_the_compose_file_of_the_registrator_page(docker: DockerEngine) -> None:
    (text,) = blocks(ROOT / "docs" / "registrator.md", "yaml")
    docker("compose", "--file", "-", "config", "--quiet", stdin=text)


def test_no_other_page_shows_commands_that_nobody_runs() -> None:
    tested = {"README.md", "running.md", "config.md", "routing.md", "server.md", "registrator.md"}
    tested |= {"docker.md"}  # in tests/docker/test_page.py
    generated = {"benchmarks.md"}
    for page in PAGES:
        if page.name not in tested | generated:
            assert commands(page) == [], page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_examples_run(page: Path) -> None:
    for script in blocks(page, "python"):
        if "mesh.http" in script and "Runtime" not in script:
            continue  # calls a service of the page's commands, and is run with them
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stderr}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_settings_table_is_complete() -> None:
    from meshkit.settings import MeshSettings

    table = (ROOT / "docs" / "running.md").read_text()
    for name in MeshSettings.model_fields:
        assert f"| `{name}` | `MESHKIT_{name.upper()}`" in table, name


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()
