"""Containers in other registries: as Registrator's keys, and as instances of meshkit's."""

import base64
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from meshkit.model import Status
from tests.servers import Consul, Etcd, ZooKeeper
from tests.servers.docker_engine import DockerEngine
from tests.servers.fixtures import MakeEtcd
from tests.support.registrator import IMAGE, LIMIT, finished, linger, offering, registrator, shows
from tests.support.waiting import eventually

pytestmark = pytest.mark.docker

UP, DRAINING = Status.UP, Status.DRAINING
TTL = ("-ttl", "10", "-ttl-refresh", "3")

Read = Callable[[], dict[str, bytes]]


def zookeeper_entries(client: KazooClient, base: str) -> dict[str, bytes]:
    found = {}
    for name in children(client, base):
        for node in children(client, f"{base}/{name}"):
            try:
                found[f"{base}/{name}/{node}"] = client.get(f"{base}/{name}/{node}")[0]
            except NoNodeError:
                continue
    return found


def children(client: KazooClient, path: str) -> list[str]:
    try:
        names: list[str] = client.get_children(path)
    except NoNodeError:
        return []
    return names


def consul_entries(consul: Consul, prefix: str) -> dict[str, bytes]:
    status, found = consul.request("GET", f"/v1/kv/{prefix}?recurse")
    if status == 404:
        return {}
    return {each["Key"]: base64.b64decode(each["Value"]) for each in found}


@pytest.fixture(
    params=[
        pytest.param("etcdkv", marks=pytest.mark.etcd),
        pytest.param("skydns2", marks=pytest.mark.etcd),
        pytest.param("consulkv", marks=pytest.mark.consul),
        pytest.param("zookeeperkv", marks=pytest.mark.zookeeper),
    ]
)
def keys(request: pytest.FixtureRequest, docker: DockerEngine) -> Iterator[tuple[str, Read]]:
    """The URL, with a place of the test's own, and what is there for its service."""
    kind, place = request.param, docker.prefix
    web = docker.named("web")

    def of_service(entries: dict[str, bytes]) -> dict[str, bytes]:
        return {key: value for key, value in entries.items() if f"/{web}/" in key}

    if kind == "consulkv":
        consul: Consul = request.getfixturevalue("consul")
        url = f"consulkv://{consul.address}/{place}"
        yield url, lambda: of_service(consul_entries(consul, place))
    elif kind == "zookeeperkv":
        zookeeper: ZooKeeper = request.getfixturevalue("zookeeper")
        client = KazooClient(zookeeper.address)
        client.start(30)
        url = f"{zookeeper.url}/{place}?layout=registrator"
        yield url, lambda: of_service(zookeeper_entries(client, f"/{place}"))
        client.stop()
        client.close()
    else:
        etcd: Etcd = request.getfixturevalue("etcd")
        prefix = f"/{place}/" if kind == "etcdkv" else f"/skydns/local/{place}/"
        path = place if kind == "etcdkv" else f"{place}.local"
        url = f"{kind}://{etcd.address}/{path}"
        yield url, lambda: of_service(etcd.entries(prefix))


def address(docker: DockerEngine, container: str) -> str:
    return docker("port", docker.named(container), "8000/tcp").splitlines()[0]


def holds(read: Read, count: int) -> dict[str, bytes]:
    eventually(lambda: len(read()) == count, within=LIMIT, every=0.1)
    return read()


def test_keys_as_registrator_writes_them(
    docker: DockerEngine, keys: tuple[str, Read], name: str, tmp_path: Path
) -> None:
    url, read = keys
    labels = ("--label", "SERVICE_TAGS=v1", "--label", "SERVICE_REGION=eu")
    with registrator(url, own=name, folder=tmp_path):
        container = linger(docker, "web", *offering(name, *labels))
        ((key, value),) = holds(read, 1).items()
        host = docker("info", "--format", "{{.Name}}")
        at = address(docker, "web")
        match urlsplit(url).scheme:
            case "skydns2":
                ip, _, port = at.rpartition(":")
                assert json.loads(value) == {"host": ip, "port": int(port)}
                assert key.startswith(f"/skydns/local/{docker.prefix}/{name}/{host}-{name}-8000-")
                assert "_" not in key
                assert ":" not in key
            case "zookeeper":
                assert key == f"/{docker.prefix}/{name}/{at}"
                expected: dict[str, Any] = {
                    "Name": name,
                    "IP": at.rpartition(":")[0],
                    "PublicPort": int(at.rpartition(":")[2]),
                    "PrivatePort": 8000,
                    "ContainerID": container[:12],
                    "Tags": ["v1"],
                    "Attrs": {"region": "eu"},
                }
                assert json.loads(value) == expected
            case scheme:
                slash = "" if scheme == "consulkv" else "/"
                assert key == f"{slash}{docker.prefix}/{name}/{host}:{name}:8000"
                assert value.decode() == at
        # Who drains is not to be called, and a key can't say so: it goes before the container.
        stop = [str(docker.program), "stop", "--time", "120", docker.named("web")]
        with subprocess.Popen(stop, stdout=subprocess.DEVNULL) as stopping:
            holds(read, 0)
            assert docker("inspect", "-f", "{{.State.Running}}", name) == "true"
            docker("exec", name, "touch", "/tmp/go")
            stopping.wait(LIMIT)
        docker("start", name)
        holds(read, 1)


def test_killed_and_started_again(
    docker: DockerEngine, keys: tuple[str, Read], name: str, tmp_path: Path
) -> None:
    url, read = keys
    ttl = TTL if url.startswith("etcdkv") else ()
    linger(docker, "stays", *offering(name))
    linger(docker, "goes", *offering(name))
    with registrator(url, *ttl, own=name, folder=tmp_path) as first:
        before = holds(read, 2)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
    docker("kill", docker.named("goes"))
    linger(docker, "comes", *offering(name))
    with registrator(url, *ttl, own=name, folder=tmp_path):
        eventually(lambda: read() != before and len(read()) == 2, within=LIMIT, every=0.1)
        assert len(read().keys() & before.keys()) == 1


def test_two_hosts_and_others_leave_each_other_alone(
    docker: DockerEngine, keys: tuple[str, Read], name: str, tmp_path: Path
) -> None:
    url, read = keys
    linger(docker, "web", *offering(name))
    with registrator(url, "--hostname", "here", own=name, folder=tmp_path):
        mine = holds(read, 1)
        if urlsplit(url).scheme == "zookeeper":
            return  # an address is one node, whoever writes it
        with registrator(
            url, "--hostname", "there", "--withdraw", own=name, folder=tmp_path
        ) as there:
            holds(read, 2)
            assert there.stop() == 0
        assert read() == mine


@pytest.mark.etcd
def test_entries_expire_only_if_asked_to(
    docker: DockerEngine, etcd: Etcd, name: str, tmp_path: Path
) -> None:
    linger(docker, "web", *offering(name))
    lasting, expiring = (f"etcdkv://{etcd.address}/{docker.prefix}/{n}" for n in ("a", "b"))
    with (
        registrator(lasting, own=name, folder=tmp_path) as one,
        registrator(expiring, "-ttl=2", "-ttl-refresh=1", own=name, folder=tmp_path) as two,
    ):

        def read() -> list[str]:
            found = etcd.entries(f"/{docker.prefix}/")
            return sorted(key.split("/")[2] for key in found if f"/{name}/" in key)

        eventually(lambda: read() == ["a", "b"], within=LIMIT)
        for command in (one, two):
            command.process.kill()
            command.process.wait(30)
        eventually(lambda: read() == ["a"], within=LIMIT)
    # Another TTL is another lease; the entry moves to it.
    with registrator(lasting, "-ttl=2", "-ttl-refresh=1", own=name, folder=tmp_path) as three:
        eventually(lambda: f"changed {name}" in three.err, within=LIMIT)
        three.process.kill()
        three.process.wait(30)
        eventually(lambda: read() == [], within=LIMIT)


@pytest.mark.parametrize(
    "engine",
    [
        "local",
        pytest.param("etcd", marks=pytest.mark.etcd),
        pytest.param("zookeeper", marks=pytest.mark.zookeeper),
    ],
)
def test_instances_of_meshkit(
    docker: DockerEngine, name: str, tmp_path: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    url = "local://"
    if engine != "local":
        url = f"{request.getfixturevalue(engine).url}/{docker.prefix}"
    linger(docker, "web", *offering(name))
    with registrator(url, own=name, folder=tmp_path) as command:
        shows(url, name, UP)
        stop = [str(docker.program), "stop", "--time", "120", name]
        with subprocess.Popen(stop, stdout=subprocess.DEVNULL) as stopping:
            shows(url, name, DRAINING)
            docker("exec", name, "touch", "/tmp/go")
            stopping.wait(LIMIT)
        shows(url, name)
        docker("start", name)
        shows(url, name, UP)
        command.process.kill()
        command.process.wait(30)
    with registrator(url, own=name, folder=tmp_path) as command:
        eventually(lambda: f"added {name}" in command.err, within=LIMIT)
        shows(url, name, UP)
        docker("kill", name)
        shows(url, name)
        assert command.stop() == 0
        assert "expire" in command.err


@pytest.mark.etcd
@pytest.mark.parametrize("scheme", ["etcd", "etcdkv"])
def test_etcd_restarts_empty(
    docker: DockerEngine, make_etcd: MakeEtcd, name: str, tmp_path: Path, scheme: str
) -> None:
    etcd = make_etcd()
    docker.run("web", *offering(name), IMAGE, "sleep", "3600")

    def entries() -> list[str]:
        return [key for key in etcd.entries("/reg/") if f"/{name}/" in key]

    with registrator(f"{scheme}://{etcd.address}/reg", own=name, folder=tmp_path) as command:
        eventually(lambda: len(entries()) == 1, within=LIMIT)
        etcd.kill()
        etcd.empty()
        eventually(lambda: "until it is back" in command.err, within=LIMIT)
        etcd.start()
        eventually(lambda: len(entries()) == 1, within=LIMIT, every=0.1)
        eventually(lambda: "is back" in command.err, within=LIMIT)


@pytest.mark.etcd
def test_once_needs_entries_that_last(docker: DockerEngine, etcd: Etcd, tmp_path: Path) -> None:
    done = finished(etcd.url, "--once", folder=tmp_path, own="nobody")
    assert done.returncode == 1
    assert "--once makes no sense with etcd://" in done.stderr
