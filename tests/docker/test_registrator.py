"""``meshkit registrator`` on the real engine and a real Consul: what is shown, and when."""

import asyncio
import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshkit.client.mesh import Mesh
from meshkit.model import Status
from tests.servers import Consul
from tests.servers.docker_engine import DockerEngine
from tests.servers.fixtures import MakeConsul
from tests.support.registrator import (
    LIMIT,
    SERVING,
    DockerProxy,
    finished,
    linger,
    offering,
    registrator,
    shows,
    statuses,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.docker, pytest.mark.consul]

UP, DOWN, DRAINING = Status.UP, Status.DOWN, Status.DRAINING


def raw(consul: Consul, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = consul.get(f"/v1/health/service/{name}")
    return found


def containers(consul: Consul, name: str) -> set[str]:
    """Which containers offer the service, by the ids of its entries."""
    return {each["Service"]["ID"].split(":")[1] for each in raw(consul, name)}


@contextlib.contextmanager
def renamed(docker: DockerEngine, old: str, new: str) -> Iterator[None]:
    docker("rename", docker.named(old), docker.named(new))
    try:
        yield
    finally:
        docker("rename", docker.named(new), docker.named(old))


def test_a_container_is_called_by_its_name(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    labels = ("--label", "SERVICE_TAGS=v1,blue", "--label", "SERVICE_REGION=eu")
    with registrator(consul.url, own=name, folder=tmp_path):
        docker.run("web", *offering(name, *labels), *SERVING)
        shows(consul.url, name, UP)
        (entry,) = raw(consul, name)
        host = docker("info", "--format", "{{.Name}}")
        assert entry["Service"]["ID"] == f"{host}:{docker.named('web')}:8000"
        assert entry["Service"]["Tags"] == ["v1", "blue"]
        assert entry["Service"]["Meta"]["region"] == "eu"

        async def call() -> str:
            async with Mesh(consul.url) as mesh, asyncio.timeout(LIMIT):
                return (await mesh.http(name).get("/etc/os-release")).text

        assert "Debian" in asyncio.run(call())
        docker("kill", docker.named("web"))
        shows(consul.url, name)


def test_it_drains_before_it_dies(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    linger(docker, "web", *offering(name))
    with registrator(consul.url, own=name, folder=tmp_path):
        shows(consul.url, name, UP)
        stop = [str(docker.program), "stop", "--time", "120", docker.named("web")]
        with subprocess.Popen(stop, stdout=subprocess.DEVNULL) as stopping:
            shows(consul.url, name, DRAINING)
            assert docker("inspect", "-f", "{{.State.Running}}", docker.named("web")) == "true"
            # Whoever knows nothing of meshkit sees a service that fails its check.
            assert consul.get(f"/v1/health/service/{name}?passing=1") == []
            docker("exec", docker.named("web"), "touch", "/tmp/go")
            stopping.wait(LIMIT)
        shows(consul.url, name)
        docker("start", docker.named("web"))
        shows(consul.url, name, UP)
        docker("kill", "--signal", "HUP", docker.named("web"))  # means something else
        with renamed(docker, "web", "later"):  # once that is seen, so is the signal
            eventually(lambda: containers(consul, name) == {docker.named("later")}, within=LIMIT)
            assert statuses(consul.url, name) == [UP]


def test_health_pause_and_names_are_followed(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    health = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1s")
    web = docker.named("web")
    with registrator(consul.url, own=name, folder=tmp_path):
        linger(docker, "web", *offering(name, *health, "--health-retries", "1"))
        shows(consul.url, name, DOWN)
        docker("exec", web, "touch", "/tmp/well")
        shows(consul.url, name, UP)
        docker("pause", web)
        shows(consul.url, name, DOWN)
        docker("unpause", web)
        shows(consul.url, name, UP)
        docker("exec", web, "rm", "/tmp/well")
        shows(consul.url, name, DOWN)
        with renamed(docker, "web", "other"):
            eventually(lambda: containers(consul, name) == {docker.named("other")}, within=LIMIT)


def test_the_network_is_chosen_and_changes_are_seen(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    inner, outer = docker.network("inner"), docker.network("outer")
    texts = (f"SERVICE_NAME={name}", f"own={name}", f"SERVICE_NETWORK={outer}")
    labels = [word for text in texts for word in ("--label", text)]
    linger(docker, "web", *labels, "--expose", "8000", "--network", inner)
    web = docker.named("web")
    with registrator(consul.url, "-internal", own=name, folder=tmp_path):

        def address() -> list[str]:
            return [each["Service"]["Address"] for each in raw(consul, name)]

        def in_network(network: str) -> list[str]:
            path = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
            return [docker("inspect", "--format", path, web)]

        docker("network", "connect", outer, web)
        eventually(lambda: address() == in_network(outer), within=LIMIT)
        docker("network", "disconnect", outer, web)
        eventually(lambda: address() == [], within=LIMIT)


def test_killed_and_started_again(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    linger(docker, "stays", *offering(name))
    linger(docker, "goes", *offering(name))
    with registrator(consul.url, own=name, folder=tmp_path) as first:
        shows(consul.url, name, UP, UP)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
    docker("kill", docker.named("goes"))
    linger(docker, "comes", *offering(name))
    assert statuses(consul.url, name) == [UP, UP]  # nobody has noticed
    with registrator(consul.url, own=name, folder=tmp_path):
        wanted = {docker.named("stays"), docker.named("comes")}
        eventually(lambda: containers(consul, name) == wanted, within=LIMIT)
        shows(consul.url, name, UP, UP)


def test_the_stream_of_events_is_cut(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path, proxy: DockerProxy
) -> None:
    linger(docker, "one", *offering(name))
    with registrator(consul.url, own=name, folder=tmp_path, env=proxy.env) as command:
        shows(consul.url, name, UP)
        proxy.refuse()
        proxy.cut()
        eventually(lambda: "until it is back" in command.err, within=LIMIT)
        docker("kill", docker.named("one"))
        linger(docker, "two", *offering(name))
        linger(docker, "three", *offering(name))
        assert command.process.poll() is None
        proxy.listen()
        shows(consul.url, name, UP, UP)
        # A cut that nobody announces: what happened meanwhile is caught up with.
        accepted = proxy.accepted
        proxy.cut()
        docker("kill", docker.named("two"))
        shows(consul.url, name, UP)
        assert proxy.accepted > accepted


def test_the_registry_restarts_empty(
    docker: DockerEngine, make_consul: MakeConsul, name: str, tmp_path: Path
) -> None:
    consul = make_consul()
    linger(docker, "web", *offering(name))
    with registrator(consul.url, own=name, folder=tmp_path) as command:
        shows(consul.url, name, UP)
        consul.kill()
        docker("kill", docker.named("web"))
        linger(docker, "other", *offering(name))
        eventually(lambda: "trying again" in command.err, within=LIMIT)
        consul.start()
        shows(consul.url, name, UP)
        assert containers(consul, name) == {docker.named("other")}
        eventually(lambda: "is back" in command.err, within=LIMIT)


def test_two_hosts_leave_each_other_alone(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    consul.put("/v1/agent/service/register", {"ID": f"here:{name}:1", "Name": name, "Port": 1})
    linger(docker, "web", *offering(name))
    with registrator(consul.url, "--hostname", "here", own=name, folder=tmp_path):
        with registrator(
            consul.url, "--hostname", "there", "--withdraw", own=name, folder=tmp_path
        ) as there:
            shows(consul.url, name, UP, UP, UP)
            assert there.stop() == 0
            assert "are removed" in there.err
        ids = {each["Service"]["ID"] for each in raw(consul, name)}
        assert ids == {f"here:{name}:1", f"here:{docker.named('web')}:8000"}


def test_what_registrator_left_is_cleaned_up_if_asked_for(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    mine = ("--hostname", "here", "--once")
    for entry in (f"here:{name}:80", f"here:{name}:53:udp", f"there:{name}:80", "custom"):
        consul.put("/v1/agent/service/register", {"ID": entry, "Name": name, "Port": 1})
    assert finished(consul.url, *mine, folder=tmp_path, own=name).returncode == 0
    assert len(raw(consul, name)) == 4
    done = finished(consul.url, *mine, "-cleanup=true", folder=tmp_path, own=name)
    assert done.returncode == 0, done.stderr
    assert {each["Service"]["ID"] for each in raw(consul, name)} == {f"there:{name}:80", "custom"}


def test_on_success_keeps_what_failed(
    docker: DockerEngine, consul: Consul, name: str, tmp_path: Path
) -> None:
    fail = ("python:3.13-slim", "sh", "-c", "until test -e /tmp/go; do sleep 0.1; done; exit 3")
    docker.run("failing", *offering(name), *fail)
    linger(docker, "killed", *offering(name))
    for _ in range(2):
        with registrator(consul.url, "-deregister", "on-success", own=name, folder=tmp_path):
            if docker("inspect", "-f", "{{.State.Running}}", docker.named("failing")) == "true":
                shows(consul.url, name, UP, UP)
                docker("kill", docker.named("killed"))
                docker("exec", docker.named("failing"), "touch", "/tmp/go")
            shows(consul.url, name, DOWN)
    with registrator(consul.url, "-deregister=on-success", own=name, folder=tmp_path):
        docker("rm", docker.named("failing"))
        shows(consul.url, name)


def test_dry_run_and_once(docker: DockerEngine, consul: Consul, name: str, tmp_path: Path) -> None:
    linger(docker, "web", *offering(name))
    planned = finished(consul.url, "--dry-run", folder=tmp_path, own=name)
    assert planned.returncode == 0, planned.stderr
    (line,) = [each for each in planned.stdout.splitlines() if name in each]
    assert line.split()[0] == "add"
    assert raw(consul, name) == []
    assert finished(consul.url, "--once", folder=tmp_path, own=name).returncode == 0
    assert statuses(consul.url, name) == [UP]
    docker("kill", docker.named("web"))
    planned = finished(consul.url, "--dry-run", "--json", folder=tmp_path, own=name)
    assert f'"id": "{docker("info", "--format", "{{.Name}}")}:{name}:8000"' in planned.stdout
