"""Engines of third parties: the example is installed as a project of its own, and used."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshkit import ConfigError, Mesh, RegistryUrlError
from meshkit.registry import open_registry
from tests.support.load import Load
from tests.support.processes import ROOT, Processes, environment

PROJECT = ROOT / "examples" / "registry-sqlite"
APPS = ROOT / "tests" / "support" / "apps"
CACHES = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info")
LIMIT = 300
RATE = 100


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the module path, with the example as pip installs it; nothing is fetched."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(PROJECT, source, ignore=CACHES)
    options = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet"]
    site = folder / "site"
    words = ["pip", "install", *options, "--target", str(site), str(source)]
    command = [sys.executable, "-m", *words]
    subprocess.run(command, check=True, timeout=LIMIT)
    return site


@pytest.fixture
def env(installed: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}


@pytest.fixture
def url(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry of the engine, which this process can open too."""
    monkeypatch.syspath_prepend(installed)
    yield f"sqlite://{tmp_path / 'registry.db'}"
    for name in [name for name in sys.modules if name.startswith("meshkit_sqlite")]:
        del sys.modules[name]


def run(*words: str, env: dict[str, str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


# --- the example ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_passes_its_own_checks(installed: Path, env: dict[str, str], tmp_path: Path) -> None:
    """As its README says, in a copy, so that nothing is left in the repository."""
    (check,) = re.findall(r"^## Check\n\n```sh\n(.*?)^```", _readme(), re.MULTILINE | re.DOTALL)
    assert check.splitlines() == ["pytest", "ruff check", "ruff format --check", "mypy"]
    project = tmp_path / "registry-sqlite"
    shutil.copytree(PROJECT, project, ignore=CACHES)
    variables = env | {"MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache/sqlite")}
    for line in check.splitlines():
        done = run(*line.split(), env=variables, folder=project)
        assert done.returncode == 0, done.stdout + done.stderr
        if line == "pytest":
            (passed,) = re.findall(r"(\d+) passed", done.stdout)
            assert int(passed) > 35, done.stdout  # most of them are the contract's
            assert "skipped" not in done.stdout


def _readme() -> str:
    return (PROJECT / "README.md").read_text()


def test_it_is_as_short_as_the_guide_says() -> None:
    lines = sum(
        len(path.read_text().splitlines()) for path in (PROJECT / "meshkit_sqlite").glob("*.py")
    )
    assert lines < 200


async def test_services_register_and_are_called_through_it(url: str, env: dict[str, str]) -> None:
    running = Processes(APPS, url)
    try:
        started = [running.start("echo:Echo", env=env) for _ in range(3)]
        leaving, *staying = [await asyncio.to_thread(each.ready) for each in started]
        async with Mesh(url) as mesh:
            client = mesh.http("echo")

            async def call() -> str:
                return str((await client.post("/count")).json()["pid"])

            async with Load(call, rate=RATE) as load:
                await load.answered_by(3)
                listed = run("meshkit", "ps", "--registry", url, env=env)
                assert all(each.instance in listed.stdout for each in started), listed
                leaving.send(signal.SIGTERM)
                assert await asyncio.to_thread(leaving.wait) == 0
                await asyncio.sleep(1)
            assert load.errors == []
            assert load.answers.keys() == {str(each.pid) for each in started}
            found = {each.id for each in (await mesh.instances("echo")).up}
            assert found == {each.instance for each in staying}
    finally:
        running.close()


def test_its_scheme_is_known(url: str, env: dict[str, str]) -> None:
    with pytest.raises(RegistryUrlError, match=r"known: .*sqlite://"):
        open_registry("sqlight:///x")
    done = run("meshkit", "ps", "--registry", "sqlight:///x", env=env)
    assert done.returncode == 1
    assert "sqlite://" in done.stderr
    done = run("meshkit", "ps", "--registry", "sqlite://x", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "meshkit: error: malformed registry URL 'sqlite://x': it needs an absolute path, "
        "as in sqlite:///var/lib/mesh/registry.db\n"
    )


def test_a_file_that_can_not_be_opened_is_one_line(url: str, env: dict[str, str]) -> None:
    missing = url.replace("registry.db", "nowhere/registry.db")
    done = run("meshkit", "ps", "--registry", missing, env=env)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"meshkit: error: {missing} can't be used: unable to open database file\n"
    )


# --- broken ones ----------------------------------------------------------------------------------

WORKING = """
from meshkit.registry import Registry

class Nothing(Registry):
    async def watch(self, service):
        yield
    async def services(self):
        return ()

def open_it(url):
    return Nothing(url.text)
"""

UNFINISHED = """
from meshkit.registry import Registry

class Half(Registry): ...

def open_it(url):
    return Half(url.text)
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, *lines: str) -> None:
    """Put a distribution with these entry points and a module ``engine_<folder>`` on the path."""
    info = folder / f"{folder.name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 1.0\n")
    entries = lines or (f"broken = engine_{folder.name}:open_it",)
    (info / "entry_points.txt").write_text("\n".join(["[meshkit.registries]", *entries, ""]))
    (folder / f"engine_{folder.name}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize(
    ("code", "said"),
    {
        "its dependency is missing": (
            "import redis_that_is_not_there",
            "can't be imported: ModuleNotFoundError: No module named 'redis_that_is_not_there'",
        ),
        "it is no Python": ("def open_it(:", "can't be imported: SyntaxError: invalid syntax"),
        "it has no such function": (
            "",
            "can't be imported: AttributeError: module 'engine_x' has no attribute 'open_it'",
        ),
        "it fails on import": ("1 / 0", "can't be imported: ZeroDivisionError: division by zero"),
        "it fails when opened": (
            "def open_it(url): raise OSError('no\\nluck with ' + url.password)",
            "can't open 'broken://me:***@host': OSError: no luck with ***",
        ),
        "it takes no URL": ("def open_it(): ...", "can't open 'broken://me:***@host': TypeError: "),
        "it is no function": ("open_it = 7", "can't open 'broken://me:***@host': TypeError: "),
        "it opens something else": (
            "def open_it(url): return [url]",
            "opened a list, which is no meshkit.registry.Registry",
        ),
        "it is unfinished": (
            UNFINISHED,
            "can't open 'broken://me:***@host': TypeError: Can't instantiate abstract class Half",
        ),
    }.values(),
)
def test_a_broken_engine_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    install(tmp_path / "x", monkeypatch, code)
    monkeypatch.delitem(sys.modules, "engine_x", raising=False)
    with pytest.raises(ConfigError) as caught:
        open_registry("broken://me:S3CRET@host")
    message = str(caught.value)
    assert message.startswith(f"registry engine broken:// (engine_x:open_it) {said}")
    assert "\n" not in message
    assert "S3CRET" not in message
    done = run(
        "meshkit",
        *("ps", "--registry", "broken://me:S3CRET@host"),
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path / "x"), str(ROOT)])},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"meshkit: error: {message}\n"


def test_an_engines_own_errors_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "own", monkeypatch, "def open_it(url): raise url.error('no such realm')")
    with pytest.raises(RegistryUrlError, match=r"malformed registry URL 'broken://x': no such"):
        open_registry("broken://x")


def test_two_engines_of_one_scheme_are_told_apart_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        install(tmp_path / name, monkeypatch, WORKING)
    said = "several installed engines: engine_one:open_it, engine_two:open_it; uninstall"
    with pytest.raises(ConfigError, match=said):
        open_registry("broken://x")


def test_a_built_in_scheme_can_not_be_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "memory", monkeypatch, WORKING, "memory = engine_memory:open_it")
    assert type(open_registry("memory://x")).__name__ == "MemoryRegistry"
