"""20 containers start and end in random order: a registry shows what runs, within seconds.

Whatever happens meanwhile to the registrator and to its view of Docker.
"""

import contextlib
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.servers import Consul
from tests.servers.docker_engine import DockerEngine
from tests.servers.fixtures import MakeEtcd, MakeZooKeeper
from tests.support.fleet import Fleet, MeshReader, Reader, SkyDnsReader
from tests.support.registrator import DockerProxy, registrator

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CONTAINERS = 20
# Within seconds, and less is measured; but other tests may keep the machine busy. It is by events
# that all is seen here: the next look at the whole list would come too late.
LIMIT = 60.0
RARELY = ("-resync", "600")
# Until a registrator that was just started, or has just got Docker back, has compared all.
RECOVERY = 60.0


def change(fleet: Fleet, chance: random.Random) -> None:
    """Let something happen to one container."""
    number = chance.randrange(CONTAINERS)
    if number not in fleet.running:
        fleet.start(number)
    elif chance.random() < 0.2:
        fleet.restart(number)
    else:
        fleet.end(number, chance.choice(["kill", "stop", "remove"]))


async def follow(fleet: Fleet, reader: Reader, chance: random.Random, steps: int) -> list[float]:
    """Let things happen one by one; return how long each took to be seen."""
    took = []
    for _ in range(steps):
        change(fleet, chance)
        took.append(await reader.wait_for(fleet.truth, within=LIMIT))
    return took


class Place:
    """A registry to write to, and how to read it.

    Attributes:
        url: given to the registrator.
        reader: opened by the test.
        steps: what happens while nothing is wrong.
    """

    def __init__(self, url: str, reader: Reader, *, steps: int = 8) -> None:
        self.url = url
        self.reader = reader
        self.steps = steps


def consul_place(request: pytest.FixtureRequest, prefix: str) -> Place:
    consul: Consul = request.getfixturevalue("consul")
    return Place(consul.url, MeshReader(consul.url, prefix), steps=16)


def etcd_place(request: pytest.FixtureRequest, prefix: str) -> Place:
    make_etcd: MakeEtcd = request.getfixturevalue("make_etcd")
    etcd = make_etcd()
    return Place(etcd.url, MeshReader(etcd.url, prefix))


def zookeeper_place(request: pytest.FixtureRequest, prefix: str) -> Place:
    make_zookeeper: MakeZooKeeper = request.getfixturevalue("make_zookeeper")
    zookeeper = make_zookeeper()
    return Place(zookeeper.url, MeshReader(zookeeper.url, prefix))


def skydns_place(request: pytest.FixtureRequest, prefix: str) -> Place:
    make_etcd: MakeEtcd = request.getfixturevalue("make_etcd")
    etcd = make_etcd()
    url = f"skydns2://{etcd.address}/cluster.local"
    return Place(url, SkyDnsReader(etcd, prefix))


@pytest.mark.parametrize(
    "find",
    [
        pytest.param(consul_place, marks=pytest.mark.consul, id="consul"),
        pytest.param(etcd_place, marks=pytest.mark.etcd, id="etcd"),
        pytest.param(zookeeper_place, marks=pytest.mark.zookeeper, id="zookeeper"),
        pytest.param(skydns_place, marks=pytest.mark.etcd, id="skydns"),
    ],
)
async def test_the_registry_shows_what_runs(
    find: Callable[[pytest.FixtureRequest, str], Place],
    request: pytest.FixtureRequest,
    docker: DockerEngine,
    proxy: DockerProxy,
    tmp_path: Path,
) -> None:
    place, fleet, chance = find(request, docker.prefix), Fleet(docker), random.Random(5)
    async with contextlib.aclosing(place.reader) as reader:
        with registrator(place.url, *RARELY, folder=tmp_path, env=proxy.env) as first:
            fleet.start_all(chance.sample(range(CONTAINERS), CONTAINERS))
            await reader.wait_for(fleet.truth, within=RECOVERY)
            took = await follow(fleet, reader, chance, place.steps)
            await events_cut(fleet, reader, chance, proxy)
            took += await follow(fleet, reader, chance, 4)
            kill(first)
        for _ in range(5):
            change(fleet, chance)  # nobody looks
        with registrator(place.url, *RARELY, folder=tmp_path):
            await reader.wait_for(fleet.truth, within=RECOVERY)
            fleet.end_all(chance.sample(sorted(fleet.running), len(fleet.running)))
            await reader.wait_for(set(), within=RECOVERY)
    print(f"seen after {max(took):.2f} s at most, {sorted(took)[len(took) // 2]:.2f} s median")


async def events_cut(
    fleet: Fleet, reader: Reader, chance: random.Random, proxy: DockerProxy
) -> None:
    """Things happen while the registrator can't reach Docker."""
    proxy.refuse()
    proxy.cut()
    before = await reader.shown()
    for _ in range(4):
        change(fleet, chance)
    assert await reader.shown() == before
    proxy.listen()
    await reader.wait_for(fleet.truth, within=RECOVERY)


def kill(registrator: Command) -> None:
    registrator.process.send_signal(signal.SIGKILL)
    registrator.process.wait(30)
