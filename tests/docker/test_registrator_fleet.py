"""20 containers start and end in random order: a registry shows what runs, within seconds.

Whatever happens meanwhile to the registrator and to its view of Docker.
"""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.servers import Consul
from tests.servers.docker_engine import DockerEngine
from tests.support.fleet import Fleet, Reader
from tests.support.registrator import DockerProxy, registrator

pytestmark = [pytest.mark.docker, pytest.mark.slow]

CONTAINERS = 20
STEPS = 30
# 3 s are asked for, and less is measured; but other tests may keep the machine busy.
LIMIT = 10.0
# Until a registrator that was just started, or has just got Docker back, has compared all.
RECOVERY = 60.0


@pytest.fixture
def fleet(docker: DockerEngine) -> Fleet:
    return Fleet(docker)


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[DockerProxy]:
    proxy = DockerProxy(tmp_path)
    try:
        yield proxy
    finally:
        proxy.close()


def change(fleet: Fleet, chance: random.Random) -> None:
    """Let something happen to one container."""
    number = chance.randrange(CONTAINERS)
    if number not in fleet.running:
        fleet.start(number)
    elif chance.random() < 0.2:
        fleet.restart(number)
    else:
        fleet.end(number, chance.choice(["kill", "stop", "remove"]))


def follow(fleet: Fleet, reader: Reader, chance: random.Random, steps: int) -> list[float]:
    """Let things happen one by one; return how long each took to be seen."""
    took = []
    for _ in range(steps):
        change(fleet, chance)
        took.append(reader.wait_for(fleet.truth, within=LIMIT))
    return took


@pytest.mark.consul
def test_consul_shows_what_runs(
    fleet: Fleet, docker: DockerEngine, consul: Consul, proxy: DockerProxy, tmp_path: Path
) -> None:
    chance = random.Random(5)
    with Reader(consul.url, docker.prefix) as reader:
        with registrator(consul.url, folder=tmp_path, env=proxy.env) as first:
            for number in chance.sample(range(CONTAINERS), CONTAINERS):
                fleet.start(number)
            reader.wait_for(fleet.truth, within=RECOVERY)
            took = follow(fleet, reader, chance, STEPS)
            events_cut(fleet, reader, chance, proxy)
            took += follow(fleet, reader, chance, 5)
            kill(first)
        for _ in range(5):
            change(fleet, chance)  # nobody looks
        assert reader.shown() != fleet.truth
        with registrator(consul.url, folder=tmp_path):
            reader.wait_for(fleet.truth, within=RECOVERY)
            for number in chance.sample(sorted(fleet.running), len(fleet.running)):
                fleet.end(number, "kill")
            reader.wait_for(set(), within=RECOVERY)
    print(f"seen after {max(took):.2f} s at most, {sorted(took)[len(took) // 2]:.2f} s median")


def events_cut(fleet: Fleet, reader: Reader, chance: random.Random, proxy: DockerProxy) -> None:
    """Things happen while the registrator can't reach Docker."""
    proxy.refuse()
    proxy.cut()
    before = reader.shown()
    for _ in range(5):
        change(fleet, chance)
    assert reader.shown() == before
    proxy.listen()
    reader.wait_for(fleet.truth, within=RECOVERY)


def kill(registrator: Command) -> None:
    registrator.process.send_signal(signal.SIGKILL)
    registrator.process.wait(30)
