"""scripts/fetch-servers: what it does without fetching, and how its absence shows in tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "fetch-servers"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH with what the script needs, and without apt or any server."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("bash", "dirname"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


def run(tools: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tools / "bash", SCRIPT, *words],
        env={"PATH": str(tools), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def program(file: Path) -> Path:
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_what_was_fetched_before_is_used(tools: Path, tmp_path: Path) -> None:
    consul, folder = program(tmp_path / "consul"), str(tmp_path)
    for done in (run(tools, "--dir", folder, "consul"), run(tools, "consul", TEST_SERVERS=folder)):
        assert (done.returncode, done.stdout, done.stderr) == (0, f"consul: {consul}\n", "")
    for name in ("etcd", "zookeeper"):
        program(tmp_path / name)
    lines = run(tools, "--dir", folder).stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["consul", "etcd", "zookeeper"]


def test_curator_is_for_those_who_have_a_jdk(tools: Path, tmp_path: Path) -> None:
    for name in ("consul", "etcd", "zookeeper", "curator"):
        program(tmp_path / name)
    assert "curator:" not in run(tools, "--dir", str(tmp_path)).stdout
    program(tools / "javac")
    done = run(tools, "--dir", str(tmp_path))
    assert done.stdout.splitlines()[-1] == f"curator: {tmp_path / 'curator'}"


def test_a_named_or_installed_program_goes_before(tools: Path, tmp_path: Path) -> None:
    installed, named = program(tools / "consul"), program(tmp_path / "consul-1.22")
    folder = str(tmp_path / "cache")
    assert run(tools, "--dir", folder, "consul").stdout == f"consul: {installed}\n"
    done = run(tools, "--dir", folder, "consul", TEST_CONSUL=str(named))
    assert done.stdout == f"consul: {named}\n"
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("words", "variables", "reason"),
    [
        (
            ["nomad"],
            {},
            "unknown server or option 'nomad'; known: consul etcd zookeeper, --dir DIR",
        ),
        (["--dir"], {}, "--dir needs a folder"),
        (["consul"], {"TEST_CONSUL": "/missing"}, "TEST_CONSUL=/missing is not a program"),
        (
            ["zookeeper"],
            {"TEST_SERVERS": "/nowhere"},
            "zookeeper can't be run: no java here; install a JRE (default-jre-headless)",
        ),
    ],
)
def test_mistakes_are_named_in_one_line(
    tools: Path, words: list[str], variables: dict[str, str], reason: str
) -> None:
    done = run(tools, *words, **variables)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"fetch-servers: {reason}\n"


def test_without_apt_it_says_so(tools: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    done = run(tools, "--dir", str(folder))
    assert done.returncode == 1
    for name in ("consul", "etcd-server"):
        assert f"{name} can't be fetched: no apt-get and dpkg-deb here" in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize("required", ["", "1"])
def test_without_a_server_tests_say_how_to_get_it(tmp_path: Path, required: str) -> None:
    """They are skipped with the reason, or fail where servers are required."""
    environ = dict(os.environ, TEST_SERVERS=str(tmp_path), TEST_REQUIRE_SERVERS=required)
    environ |= {"PATH": str(tmp_path), "TEST_CONSUL": ""}
    name = "tests/registry/test_consul.py::test_catalog_shows_it_right"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", name],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "no consul here: run scripts/fetch-servers consul" in done.stdout
    assert ("1 error" if required else "1 skipped") in done.stdout
    assert done.returncode == (1 if required else 0)
