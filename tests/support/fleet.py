"""Many containers of many kinds, and what a registry has to show of those that run."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from meshkit.model import Status
from meshkit.registry import Registry, open_registry
from tests.servers.docker_engine import DockerEngine

T = TypeVar("T")

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


class Reader:
    """Reads a registry as meshkit's consumers do: all services whose names have a prefix."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._registry: Registry | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._registry = self._wait(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._registry is not None
        self._wait(self._registry.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def shown(self) -> set[Entry]:
        """The entries that are there, whatever their status but draining."""
        return self._wait(self._read())

    def wait_for(self, truth: set[Entry], *, within: float) -> float:
        """Return how long it took until the registry showed just this, in seconds."""
        began = time.monotonic()
        while (shown := self.shown()) != truth:
            took = time.monotonic() - began
            assert took < within, f"missing {truth - shown}, too many {shown - truth}"
            time.sleep(0.05)
        return time.monotonic() - began

    async def _open(self) -> Registry:
        return await open_registry(self._url).__aenter__()

    async def _read(self) -> set[Entry]:
        assert self._registry is not None
        registry = self._registry
        names = [each.name for each in await registry.services()]
        snapshots = await asyncio.gather(
            *(registry.instances(name) for name in names if name.startswith(self._prefix))
        )
        return {
            (snapshot.service, endpoint.host, endpoint.port)
            for snapshot in snapshots
            for instance in snapshot.instances
            if instance.status is not Status.DRAINING
            for endpoint in instance.endpoints.values()
        }

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
