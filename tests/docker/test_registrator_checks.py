"""Checks of containers, run by Consul or by us, on real servers in real containers."""

import json
import urllib.request
from pathlib import Path

import pytest

from meshkit.model import Status
from tests.servers import Consul, Etcd
from tests.servers.docker_engine import DockerEngine
from tests.servers.fixtures import MakeConsul
from tests.servers.ports import free_ports
from tests.support.registrator import IMAGE, LIMIT, registrator, shows
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker

UP, DOWN = Status.UP, Status.DOWN
# Is well, over HTTP, for as long as there is the file.
WEB = (IMAGE, "sh", "-c", "cd /srv && touch well && exec python -m http.server 8000")
QUICK = ("--label", "SERVICE_CHECK_INTERVAL=1s", "--label", "SERVICE_CHECK_TIMEOUT=5s")


@pytest.fixture(
    params=[
        pytest.param("consul", marks=pytest.mark.consul),
        pytest.param("etcd", marks=pytest.mark.etcd),
        "local",
    ]
)
def url(request: pytest.FixtureRequest, docker: DockerEngine) -> str:
    """Consul runs checks itself; for the others we do."""
    match request.param:
        case "consul":
            consul: Consul = request.getfixturevalue("consul")
            return consul.url
        case "etcd":
            etcd: Etcd = request.getfixturevalue("etcd")
            return f"{etcd.url}/{docker.prefix}"
        case _:
            return "local://"


def offering(name: str, *checks: str) -> tuple[str, ...]:
    labels = [f"SERVICE_{text}" for text in (f"NAME={name}", *checks)]
    options = [word for label in (*labels, f"own={name}") for word in ("--label", label)]
    return ("--publish", "127.0.0.1::8000", *options, *QUICK)


def test_http(docker: DockerEngine, url: str, name: str, tmp_path: Path) -> None:
    with registrator(url, own=name, folder=tmp_path):
        docker.run("web", *offering(name, "CHECK_HTTP=/well"), *WEB)
        shows(url, name, UP)
        docker("exec", name, "rm", "/srv/well")
        shows(url, name, DOWN)
        docker("exec", name, "touch", "/srv/well")
        shows(url, name, UP)


def test_tcp(docker: DockerEngine, url: str, name: str, tmp_path: Path) -> None:
    # Published by address, a port is open only once somebody listens in the container.
    later = "until test -e /tmp/go; do sleep 0.1; done; cd /srv; exec python -m http.server 8000"
    command = (IMAGE, "sh", "-c", later)
    labels = offering(name, "CHECK_TCP=true")[2:]
    with registrator(url, "-internal", own=name, folder=tmp_path):
        docker.run("web", "--expose", "8000", *labels, *command)
        shows(url, name, DOWN)
        docker("exec", name, "touch", "/tmp/go")
        shows(url, name, UP)


@pytest.mark.etcd
def test_a_failing_check_takes_the_key_out(
    docker: DockerEngine, etcd: Etcd, name: str, tmp_path: Path
) -> None:
    def keys() -> list[str]:
        return [each for each in etcd.entries(f"/{docker.prefix}/") if f"/{name}/" in each]

    def holds(count: int) -> None:
        eventually(lambda: len(keys()) == count, within=LIMIT, every=0.1)

    url = f"etcdkv://{etcd.address}/{docker.prefix}"
    with registrator(url, own=name, folder=tmp_path) as command:
        docker.run("web", *offering(name, "CHECK_HTTP=/well"), *WEB)
        holds(1)
        docker("exec", name, "rm", "/srv/well")
        holds(0)
        eventually(lambda: "/well is answered with 404" in command.err, within=LIMIT)
        docker("exec", name, "touch", "/srv/well")
        holds(1)


@pytest.mark.parametrize("kind", [pytest.param("consul", marks=pytest.mark.consul), "local"])
def test_a_service_says_itself_that_it_is_well(
    docker: DockerEngine, name: str, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    (port,) = free_ports(1)
    url, teller = "local://", f"127.0.0.1:{port}"
    if kind == "consul":
        consul: Consul = request.getfixturevalue("consul")
        url, teller = consul.url, consul.address
    with registrator(url, "--health-port", str(port), own=name, folder=tmp_path):
        docker.run("web", *offering(name, "CHECK_TTL=300s"), *WEB)
        shows(url, name, DOWN)
        check = f"service:{docker('info', '--format', '{{.Name}}')}:{name}:8000"
        for verb, status in (("pass", UP), ("fail", DOWN), ("pass", UP)):
            path = f"http://{teller}/v1/agent/check/{verb}/{check}"
            with urllib.request.urlopen(urllib.request.Request(path, method="PUT")) as answer:
                assert answer.status == 200
            shows(url, name, status)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            facts = json.load(answer)
        assert facts["docker"] == facts["registry"] == "up"
        assert facts["owned"] >= 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        assert "meshkit_registrator_registry_up 1" in lines


@pytest.mark.consul
def test_a_command_needs_consuls_permission(
    docker: DockerEngine, make_consul: MakeConsul, name: str, tmp_path: Path
) -> None:
    strict, free = make_consul(), make_consul(settings={"enable_script_checks": True})
    # To Consul 1 is a warning, with which a service is still used.
    script = offering(name, "CHECK_SCRIPT=test -e $SERVICE_IP.$SERVICE_PORT.well || exit 2")
    docker.run("web", *script, *WEB)
    with registrator(strict.url, own=name, folder=tmp_path) as command:
        said = f"container {name} asks for a check by a command"
        eventually(lambda: said in command.err, within=LIMIT)
    with registrator(free.url, own=name, folder=tmp_path):
        shows(free.url, name, DOWN)
        address = docker("port", name, "8000/tcp").splitlines()[0]
        well = Path(f"/proc/{free.pid}/cwd").resolve() / f"{address.replace(':', '.')}.well"
        well.touch()
        try:
            shows(free.url, name, UP)
        finally:
            well.unlink()


@pytest.mark.consul
def test_consul_gets_the_check_as_it_was_asked_for(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    asked = ("CHECK_HTTP=/well", "CHECK_HTTP_METHOD=HEAD", "CHECK_INITIAL_STATUS=passing")
    docker.run("web", *offering(name, *asked, "CHECK_DEREGISTER_AFTER=20m"), *WEB)
    with registrator(consul.url, own=name, folder=tmp_path):
        shows(consul.url, name, UP)
        eventually(lambda: "HEAD /well" in docker.logs("web"), within=LIMIT, every=0.1)
