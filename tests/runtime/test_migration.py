"""From one registry to another in steps, under steady traffic, without a failed call."""

import asyncio
import dataclasses
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from meshkit import Mesh
from tests.servers import Consul
from tests.servers.fixtures import MakeZooKeeper
from tests.support.load import Load
from tests.support.processes import Processes, ServiceProcess

RATE = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Old:
    """The registry that is left behind, and how it ends for good."""

    url: str
    end: Callable[[], None]


def remove(folder: Path) -> None:
    """Remove it, whoever still writes there."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["local", pytest.param("zookeeper", marks=pytest.mark.zookeeper)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Old:
    if request.param == "local":
        folder = tmp_path / "old-registry"
        return Old(f"local://?dir={folder}", lambda: remove(folder))
    make: MakeZooKeeper = request.getfixturevalue("make_zookeeper")
    server = make()
    return Old(f"{server.url}/mesh", server.kill)


class Consumer:
    """What calls all the time; it is restarted with another registry, as a rolling restart does."""

    def __init__(self) -> None:
        self._meshes: list[Mesh] = []
        self._turn = 0

    async def restart(self, registry: str) -> None:
        """Begin with this registry; the earlier one ends when its calls have."""
        mesh = Mesh(registry)
        await mesh.http("echo").get("/who")
        self._meshes.append(mesh)
        if len(self._meshes) > 1:
            await asyncio.sleep(0.5)
            await self._meshes[-2].aclose()

    async def call(self) -> str:
        """Call by turns what may be repeated and what may not."""
        self._turn += 1
        client = self._meshes[-1].http("echo")
        answer = await (client.get("/who") if self._turn % 2 else client.post("/count"))
        return str(answer.raise_for_status().json()["pid"])

    async def aclose(self) -> None:
        await self._meshes[-1].aclose()


async def replace(
    services: Processes, running: list[ServiceProcess], registry: str
) -> list[ServiceProcess]:
    """Restart the instances one by one, each new one before an old one leaves."""
    services.registry = registry
    fresh = []
    for each in running:
        fresh.append(await asyncio.to_thread(services.start("echo:Echo").ready))
        each.send(signal.SIGTERM)
        assert await asyncio.to_thread(each.wait) == 0
    return fresh


@pytest.mark.consul
@pytest.mark.slow
async def test_moving_to_another_registry_fails_no_call(
    old: Old, consul: Consul, services: Processes
) -> None:
    new = consul.url
    services.registry = old.url
    running = await asyncio.to_thread(services.start_all, "echo:Echo", 2)
    consumer = Consumer()
    await consumer.restart(old.url)
    async with Load(consumer.call, rate=RATE) as load:
        await load.answered_by(2)
        running = await replace(services, running, f"{old.url} {new}")
        await load.answered_by(4)
        await consumer.restart(f"{new} {old.url}")
        running = await replace(services, running, new)
        await load.answered_by(6)
        await asyncio.to_thread(old.end)
        await asyncio.sleep(2)
        running = await replace(services, running, new)  # life goes on beside the dead one
        await load.answered_by(8)
        await consumer.restart(new)
        await asyncio.sleep(1)
    await consumer.aclose()
    assert load.errors == []
    assert sum(load.answers.values()) == load.calls > 5 * RATE
    assert load.answers.keys() == {str(each.pid) for each in services.started}
