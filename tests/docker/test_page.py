"""docs/docker.md: its commands are typed as they stand there, and say what it shows."""

import contextlib
import http.client
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.docker_engine import DockerEngine
from tests.support.processes import ROOT, environment
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.xdist_group("docker-compose")]

PAGE = ROOT / "docs" / "docker.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT = 900  # seconds for one command, with builds, on a busy machine
SETTLING = 120.0

Compose = Callable[..., str]


@pytest.fixture
def compose(docker_program: Path) -> Iterator[Compose]:
    """Runs a command line of the page on a project of the test's own."""
    engine = DockerEngine(docker_program)
    variables = environment({"COMPOSE_PROJECT_NAME": engine.prefix, "CONSUL_PORT": "0"})

    def run(line: str) -> str:
        done = subprocess.run(
            shlex.split(line),
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout

    try:
        yield run
    finally:
        # Docker 20.10 sometimes keeps a network as used whose containers are all gone; that is no
        # fault of what is tested here.
        with contextlib.suppress(AssertionError):
            run("docker compose down --volumes --rmi local")


def commands() -> list[tuple[str, str]]:
    """Each command, with what the page says that it prints (after the last one of a block)."""
    found: list[tuple[str, str]] = []
    for kind, text in BLOCK.findall(PAGE.read_text()):
        if kind == "sh":
            found += [(line, "") for line in text.splitlines()]
        elif found:  # before the first command it is the demo's, which has tests of its own
            found[-1] = (found[-1][0], text)
    return found


def says(output: str, shown: str, project: str) -> bool:
    """Whether the output has the lines that are shown; later Consuls show more columns."""
    found, wanted = shape(output, project), shape(shown, "meshkit")
    return (
        len(found) == len(wanted)
        and all(any(line >= each for line in found) for each in wanted)
        and all(any(line >= each for each in wanted) for line in found)
    )


def shape(text: str, project: str) -> list[frozenset[str]]:
    """Return the words of each line, without what differs from run to run."""
    lines = []
    for line in text.splitlines():
        plain = line.replace(project, "meshkit")
        plain = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", plain)
        plain = re.sub(r"\b(orders|users)-[0-9a-f]{12}-\d+-[0-9a-f]{6}\b", r"\1-ID", plain)
        plain = re.sub(r"\S+-meshkit-stock-1-8000-[0-9a-f]+", "stock-ID", plain)
        plain = re.sub(r"users-\d+-\d+-\d+-\d+-\d+", "users-IP", plain)
        plain = re.sub(r"\d+\.\d+\.\d+\.\d+:\d+", "ADDRESS", plain)
        plain = re.sub(r"\b\d+[smh]\b", "AGE", plain)
        plain = re.sub(r"\b\d+\.\d+\.\d+\b", "VERSION", plain)
        plain = re.sub(r"^node\d", "NODE", plain) if "ID" in plain else plain  # anyone may lead
        if words := plain.split():
            lines.append(frozenset(words))
    return lines


def see_five_of_users_and_nothing_collide(compose: Compose) -> None:
    compose("docker compose up --detach --no-recreate --scale users=5 users")

    def registered() -> int:
        shown = json.loads(compose("docker compose exec -T orders meshkit ps users --json"))
        up = [each for each in shown if each["status"] == "up" and "v1" in each["tags"]]
        return len({each["endpoints"]["http"].rpartition(":")[0] for each in up})

    eventually(lambda: registered() == 5, within=SETTLING, every=1)


def see_the_web_ui(compose: Compose) -> None:
    host, port = compose("docker compose port node4 8500").strip().split(":")
    assert host == "127.0.0.1"
    for path, content in (("/ui/", "Consul"), ("/v1/catalog/services", '"users"')):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        assert content in answer.read().decode()
        connection.close()


def test_the_commands_say_what_the_page_shows(compose: Compose) -> None:
    shown = commands()
    assert len(shown) >= 11
    project = json.loads(compose("docker compose config --format json"))["name"]
    assert shown[0][0].startswith("docker compose up --build --wait")
    for line, expected in shown:
        if line == "docker compose down --volumes":
            continue  # at the end of all tests
        output = compose(line)
        if expected:
            eventually(
                lambda: says(compose(line), expected, project),  # noqa: B023 - called at once
                within=SETTLING,
                every=1,
            )
        elif "checks/" in line:
            checks = json.loads(output)
            assert checks
            assert {each["Status"] for each in checks} == {"passing"}
        elif line.endswith("ps"):
            assert output.count("(healthy)") >= 4 + 5  # nodes, users and orders
        elif "logs" in line:
            tally = json.loads(output[output.index("{") :])
            assert tally["failed"] == 0
            assert tally["answered"] > 0
    # Here and not in tests of their own, as one cluster has to serve them all.
    see_five_of_users_and_nothing_collide(compose)
    see_the_web_ui(compose)


def test_each_profile_is_right_on_its_own() -> None:
    for profile, expected in {
        "consul": {"node1", "node2", "node3", "node4"},
        "etcd": {"etcd1", "etcd2", "etcd3"},
        "zookeeper": {"zoo1", "zoo2", "zoo3"},
    }.items():
        done = subprocess.run(
            ["docker", "compose", "config", "--format", "json"],
            cwd=ROOT,
            env=environment({"COMPOSE_PROFILES": profile}),
            capture_output=True,
            text=True,
            check=True,
        )
        services = json.loads(done.stdout)["services"]
        assert {"users", "users-v2", "orders", "load"} | expected <= services.keys()
        for name in ("users", "users-v2", "orders", "load"):
            registry = services[name]["environment"]["MESHKIT_REGISTRY"]
            assert registry.startswith(f"{profile}://")
            hosts = registry.partition("://")[2].partition("/")[0].split(",")
            assert {host.partition(":")[0] for host in hosts} <= expected
            assert "ports" not in services[name]  # so that it can be scaled
