"""``zookeeper://`` and Apache Curator's service discovery find each other's instances."""

import contextlib
import dataclasses
import json
import logging
import queue
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import open_registry
from meshkit.registry.zookeeper import codec
from meshkit.testing.watched import Watched
from tests.registry.zookeeper_tree import fresh, path_of, tree
from tests.servers import ZooKeeper
from tests.servers.programs import require_program

SOURCE = Path(__file__).parent / "curator" / "Curator.java"
START_LIMIT = 40.0

USERS = Instance(
    id="users-1a2b",
    service="users",
    version="1.4.2",
    tags=("blue", "canary"),
    metadata={"team": "accounts"},
    endpoints={"http": Endpoint("10.1.2.3", 8000), "grpc": Endpoint("10.1.2.4", 9000)},
    weight=7,
    zone="a",
    started_at=1763884800.5,
)


# --- a JVM with Curator ---------------------------------------------------------------------------


class Jvm:
    """Curator.java in a process; what it printed, line by line."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [require_program("curator"), SOURCE, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, holds: Callable[[str], bool]) -> str:
        last: str | None = "nothing"
        while True:
            try:
                last = self._lines.get(timeout=START_LIMIT)
            except queue.Empty:
                raise AssertionError(f"not seen; the last was {last}") from None
            assert last is not None, "it has ended"
            if holds(last):
                return last

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


@pytest.fixture
def jvm() -> Iterator[Callable[..., Jvm]]:
    if shutil.which("javac") is None:
        pytest.skip("no JDK here, which Curator needs: install default-jdk-headless")
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> Jvm:
            started = Jvm(*words)
            stack.callback(started.close)
            return started

        yield start


# Curator casts the payload to a class of the reader's choice: ours has to fit them all.
@pytest.mark.zookeeper
@pytest.mark.slow
@pytest.mark.parametrize("payload", ["java.lang.Void", "java.lang.String", "java.util.Map"])
async def test_curator_follows_ours(
    zookeeper: ZooKeeper, jvm: Callable[..., Jvm], payload: str
) -> None:
    url = fresh(zookeeper)
    async with open_registry(url) as registry:
        await registry.register(USERS)
        base = f"{path_of(url)}/services"
        reader = jvm(zookeeper.address, base, "watch", payload, "users")
        first = (
            "[users users-1a2b 10.1.2.3:8000 true http://10.1.2.3:8000 1763884800500 DYNAMIC null]"
        )
        reader.until(lambda line: line == f"cache {first}")
        await registry.register(dataclasses.replace(USERS, status=Status.DRAINING))
        reader.until(lambda line: line == f"cache {first.replace('true', 'false')}")
        six = dataclasses.replace(USERS, id="six", endpoints={"http": Endpoint("::1", 80)})
        await registry.register(six)
        reader.until(lambda line: "[users six ::1:80 true http://[::1]:80 " in line)
        await registry.deregister(USERS.id)
        reader.until(lambda line: "users-1a2b" not in line)
        await registry.deregister("six")
        reader.until(lambda line: line == "cache")


@pytest.mark.zookeeper
@pytest.mark.slow
async def test_curators_are_followed(zookeeper: ZooKeeper, jvm: Callable[..., Jvm]) -> None:
    url = fresh(zookeeper)
    async with open_registry(url) as registry, Watched(registry.watch("orders")) as watched:
        assert not (await watched.next()).instances
        writer = jvm(zookeeper.address, f"{path_of(url)}/services", "register", "orders")
        writer.until(lambda line: line == "registered")
        found = await watched.until(lambda snapshot: len(snapshot.instances) == 2)
        plain, secure = found.instances
        assert plain == Instance(
            id="a1-b2-" + plain.id[-8:],
            service="orders",
            metadata={"team": "jvm"},
            endpoints={"http": Endpoint("10.0.0.7", 80)},
            started_at=1763884800.5,
        )
        assert (secure.id, secure.status) == ("secure", Status.DOWN)
        assert secure.endpoints == {"https": Endpoint("10.0.0.8", 443)}
        (orders,) = await registry.services()
        assert (orders.name, orders.instances) == ("orders", 2)
        writer.close()
        await watched.until(lambda snapshot: not snapshot.instances)


# --- the form itself ------------------------------------------------------------------------------


def test_curators_fields_and_our_own() -> None:
    fields = json.loads(codec.encode(USERS))
    assert fields == {
        "name": "users",
        "id": "users-1a2b",
        "address": "10.1.2.3",
        "port": 8000,
        "sslPort": None,
        "payload": None,
        "registrationTimeUTC": 1763884800500,
        "serviceType": "DYNAMIC",
        "uriSpec": {
            "parts": [
                {"value": "scheme", "variable": True},
                {"value": "://", "variable": False},
                {"value": "address", "variable": True},
                {"value": ":", "variable": False},
                {"value": "port", "variable": True},
            ]
        },
        "enabled": True,
        "meshkit": {
            "version": "1.4.2",
            "tags": ["blue", "canary"],
            "metadata": {"team": "accounts"},
            "endpoints": {"http": "10.1.2.3:8000", "grpc": "10.1.2.4:9000"},
            "weight": 7,
            "zone": "a",
            "status": "up",
            "started_at": 1763884800.5,
        },
    }


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.UP])
def test_who_is_not_up_is_not_enabled(status: Status) -> None:
    assert json.loads(codec.encode(dataclasses.replace(USERS, status=status)))["enabled"] is False


def test_grpc_alone_has_an_address_and_no_uri() -> None:
    only = dataclasses.replace(USERS, endpoints={"grpc": Endpoint("10.1.2.4", 9000)})
    fields = json.loads(codec.encode(only))
    assert (fields["address"], fields["port"], fields["uriSpec"]) == ("10.1.2.4", 9000, None)
    assert codec.decode("users", USERS.id, codec.encode(only)) == only


# As ``ServiceInstance`` of Curator 2 to 5 and Spring Cloud's payload are written.
CURATORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "oldest": (
        {"address": "h", "port": 1, "sslPort": None, "payload": None, "registrationTimeUTC": 0},
        {"endpoints": {"http": Endpoint("h", 1)}},
    ),
    "both ports": (
        {"address": "::1", "port": 80, "sslPort": 443, "enabled": True},
        {"endpoints": {"http": Endpoint("::1", 80), "https": Endpoint("::1", 443)}},
    ),
    "text payload": ({"payload": "hello"}, {}),
    "no time": ({"registrationTimeUTC": float("inf")}, {}),
    "Spring Cloud": (
        {
            "address": "h",
            "port": 8080,
            "payload": {
                "@class": "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance",
                "id": "application-1",
                "name": "web",
                "metadata": {"instance_status": "UP"},
            },
            "registrationTimeUTC": 1763884800500,
            "serviceType": "DYNAMIC",
        },
        {
            "endpoints": {"http": Endpoint("h", 8080)},
            "metadata": {"instance_status": "UP"},
            "started_at": 1763884800.5,
        },
    ),
}


@pytest.mark.parametrize(("fields", "read"), CURATORS.values(), ids=CURATORS.keys())
def test_what_curator_writes(fields: dict[str, Any], read: dict[str, Any]) -> None:
    data = json.dumps({"name": "web", "id": "w1"} | fields).encode()
    assert codec.decode("web", "w1", data) == Instance(id="w1", service="web", **read)


def test_names_become_labels_and_stay_apart() -> None:
    names = ["ABC", "abc", "a_b", "a b", "é", "x" * 64, "10.0.0.1:80"]
    made = [
        codec.decode("web", name, json.dumps({"name": "web", "id": name}).encode()).id
        for name in names
    ]
    assert len(set(made)) == len(names)
    assert made[1] == "abc"
    assert made[6].startswith("10-0-0-1-80-")
    assert all(len(each) <= 63 for each in made)


def ours(**changes: Any) -> bytes:
    """Return what a node of ours could hold, were it not for ``changes``."""
    fields = json.loads(codec.encode(USERS))
    fields["meshkit"] |= changes
    return json.dumps(fields).encode()


STRANGE = {
    "nothing": b"",
    "no text": b"\xff\xfe",
    "text": b"127.0.0.1:80",
    "a number": b"1",
    "a list": b"[]",
    "another's": b'{"Name": "users", "IP": "10.0.0.1", "PublicPort": 80}',
    "another name": b'{"name": "orders", "id": "x", "address": "h", "port": 1}',
    "a port too high": b'{"name": "users", "id": "x", "address": "h", "port": 65536}',
    "a port of text": b'{"name": "users", "id": "x", "address": "h", "port": "web"}',
    "no number": b'{"name": "users", "id": "x", "address": "h", "port": 1e999}',
    "ours, cut": codec.encode(USERS)[:-20],
    "ours, of another form": b'{"name": "users", "meshkit": {"weight": "much"}}',
    "ours, no object": b'{"name": "users", "meshkit": 1}',
    "ours, with strange tags": ours(tags=[1, "a"]),
    "ours, with strange metadata": ours(metadata={"a": None}),
    "ours, without weight": ours(weight=0),
    "ours, of no time": ours(started_at=float("nan")),
    "Not An Id": ours(),
    "deep": b"[" * 100_000,
}


@pytest.mark.zookeeper
async def test_strange_nodes_are_left_out_and_named_once(
    zookeeper: ZooKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    url = fresh(zookeeper)
    folder = f"{path_of(url)}/services/users"
    with tree(zookeeper) as client, caplog.at_level(logging.WARNING, "meshkit"):
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            assert not (await watched.next()).instances
            for name, data in STRANGE.items():
                client.create(f"{folder}/{name}", data, makepath=True)
            client.create(f"{path_of(url)}/services/folder/of/others", b"", makepath=True)
            await registry.register(USERS)
            await watched.until(lambda snapshot: snapshot.instances == (USERS,))
            for _ in range(2):
                assert (await registry.instances("users")).instances == (USERS,)
                assert [each.name for each in await registry.services()] == ["users"]
            await registry.register(dataclasses.replace(USERS, weight=1))
            await watched.until(lambda snapshot: snapshot.instances[0].weight == 1)
            client.set(f"{folder}/nothing", codec.encode(dataclasses.replace(USERS, id="nothing")))
            await watched.until(lambda snapshot: len(snapshot.instances) == 2)
    lines = [record.getMessage() for record in caplog.records]
    paths = [f"{folder}/{name}" for name in STRANGE] + [f"{path_of(url)}/services/folder/of"]
    assert sorted(line.partition(" in ZooKeeper at ")[0] for line in lines) == sorted(paths)
    assert not any("\n" in line for line in lines)
