"""Many containers of many kinds, and what a registry has to show of those that run."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from meshkit.model import Endpoint, Status
from meshkit.registry import open_registry
from meshkit.registry.etcd import watching
from meshkit.registry.etcd.client import Client
from meshkit.registry.etcd.options import EtcdOptions
from tests.servers import Etcd
from tests.servers.docker_engine import DockerEngine

SLEEPING = ("python:3.13-slim", "sleep", "3600")

# A service at an address.
Entry = tuple[str, str, int]
Inspect = dict[str, Any]


def host_ports(found: Inspect, port: str) -> list[int]:
    bindings = found["NetworkSettings"]["Ports"].get(port) or []
    return [int(each["HostPort"]) for each in bindings]


def bound(found: Inspect, service: str, port: str = "8000/tcp") -> set[Entry]:
    return {(service, "127.0.0.1", each) for each in host_ports(found, port)}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A way to say what a container offers.

    Attributes:
        options: of docker run, for a container whose own service name is given.
        entries: of a container that runs, by its service name.
    """

    options: Callable[[str], list[str]]
    entries: Callable[[Inspect, str], set[Entry]]


def labels(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--label", pair)]


ONE = ["--publish", "127.0.0.1::8000"]
TWO = [*ONE, "--publish", "127.0.0.1::9000"]
KINDS = (
    Kind(lambda name: [*ONE, *labels(f"SERVICE_NAME={name}")], bound),
    Kind(lambda name: [*ONE, "--env", f"SERVICE_NAME={name}"], bound),
    Kind(lambda name: [*ONE, *ONE, *labels(f"SERVICE_NAME={name}")], bound),
    Kind(
        lambda name: [*TWO, *labels(f"SERVICE_NAME={name}", "SERVICE_TAGS=a,b")],
        lambda found, name: bound(found, f"{name}-8000") | bound(found, f"{name}-9000", "9000/tcp"),
    ),
    Kind(
        lambda name: [*TWO, *labels(f"SERVICE_8000_NAME={name}", "SERVICE_9000_IGNORE=yes")],
        bound,
    ),
    Kind(
        lambda name: ["--publish", "127.0.0.1::53/udp", *labels(f"SERVICE_NAME={name}")],
        lambda found, name: bound(found, name, "53/udp"),
    ),
    Kind(lambda name: [*ONE, *labels(f"SERVICE_NAME={name}", f"SERVICE_ID={name}")], bound),
    Kind(
        lambda name: [*ONE, *labels(f"SERVICE_NAME={name}", "SERVICE_IGNORE=true")],
        lambda found, name: set(),
    ),
    Kind(
        lambda name: ["--expose", "7", *labels(f"SERVICE_NAME={name}", "SERVICE_NETWORK=bridge")],
        lambda found, name: {
            (name, found["NetworkSettings"]["Networks"]["bridge"]["IPAddress"], 7)
        },
    ),
    Kind(
        lambda name: [
            *ONE,
            *labels(f"SERVICE_NAME={name}", "SERVICE_CHECK_TTL=often", "SERVICE_x="),
        ],
        bound,
    ),
)


class Fleet:
    """Containers numbered from 0, of all kinds in turn; each offers a service of its own name."""

    def __init__(self, engine: DockerEngine) -> None:
        self._engine = engine
        self._made: set[int] = set()
        self.running: dict[int, set[Entry]] = {}

    @property
    def truth(self) -> set[Entry]:
        """What a registry has to show."""
        return set().union(*self.running.values())

    def start(self, number: int) -> None:
        kind, name = KINDS[number % len(KINDS)], f"c{number}"
        service = self._engine.named(name)
        if number in self._made:
            self._engine("start", service)
        else:
            self._engine.run(name, *kind.options(service), *SLEEPING)
            self._made.add(number)
        (found,) = json.loads(self._engine("inspect", service))
        self.running[number] = kind.entries(found, service)

    def start_all(self, numbers: Iterable[int]) -> None:
        """Start them, some at the same time."""
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self.start, numbers))

    def end_all(self, numbers: Iterable[int]) -> None:
        """Kill them, some at the same time."""
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: self.end(number, "kill"), numbers))

    def end(self, number: int, how: str) -> None:
        name = self._engine.named(f"c{number}")
        command = {
            "kill": ["kill", name],
            "stop": ["stop", "--time", "0", name],
            "remove": ["rm", "--force", name],
        }[how]
        self._engine(*command)
        if how == "remove":
            self._made.discard(number)
        del self.running[number]

    def restart(self, number: int) -> None:
        """Docker gives it new ports."""
        del self.running[number]
        self._engine("restart", "--time", "0", self._engine.named(f"c{number}"))
        self.start(number)


class Reader(abc.ABC):
    """Reads a registry: all services whose names begin with the prefix of a test's containers."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @abc.abstractmethod
    async def all(self) -> set[Entry]:
        """The entries that are there, whatever their status but draining."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Let go of the registry."""

    async def shown(self) -> set[Entry]:
        return {entry for entry in await self.all() if entry[0].startswith(self._prefix)}

    async def wait_for(self, truth: set[Entry], *, within: float) -> float:
        """Return how long it took until the registry showed just this, in seconds."""
        began = time.monotonic()
        while (shown := await self.shown()) != truth:
            took = time.monotonic() - began
            assert took < within, f"missing {truth - shown}, too many {shown - truth}"
            await asyncio.sleep(0.05)
        return time.monotonic() - began


class MeshReader(Reader):
    """Reads as meshkit's consumers do."""

    def __init__(self, url: str, prefix: str) -> None:
        super().__init__(prefix)
        self._registry = open_registry(url)

    async def all(self) -> set[Entry]:
        names = [each.name for each in await self._registry.services()]
        snapshots = await asyncio.gather(*map(self._registry.instances, names))
        return {
            (snapshot.service, endpoint.host, endpoint.port)
            for snapshot in snapshots
            for instance in snapshot.instances
            if instance.status is not Status.DRAINING
            for endpoint in instance.endpoints.values()
        }

    async def aclose(self) -> None:
        await self._registry.aclose()


class SkyDnsReader(Reader):
    """Reads what CoreDNS would: ``/skydns/<domain, backwards>/<name>/<id>`` in etcd."""

    def __init__(self, etcd: Etcd, prefix: str, folder: str = "/skydns/local/cluster/") -> None:
        super().__init__(prefix)
        self._folder = folder
        self._client = Client(EtcdOptions(endpoints=(Endpoint.parse(etcd.address),)))

    async def all(self) -> set[Entry]:
        contents = await watching.read(self._client, self._folder.encode())
        found = set()
        for key, entry in contents.entries.items():
            value = json.loads(entry.value)
            service = key.decode().removeprefix(self._folder).partition("/")[0]
            found.add((service, value["host"], value["port"]))
        return found

    async def aclose(self) -> None:
        await self._client.aclose()
