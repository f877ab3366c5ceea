"""Two real Consul datacenters: calls leave the one whose instances are gone, and come back."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshkit import Mesh
from meshkit.discovery.failover import HOME, Failover
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.servers.consul_cluster import ConsulCluster
from tests.support.load import Load
from tests.support.processes import Processes, ServiceProcess, environment, processes
from tests.support.waiting import aeventually

APPS = Path(__file__).parents[1] / "support" / "apps"
RATE = 100


@pytest.fixture
def urls(consul_datacenters: list[ConsulCluster]) -> list[str]:
    return [each.servers[0].url for each in consul_datacenters]


@pytest.fixture
def near(urls: list[str]) -> Iterator[Processes]:
    with processes(APPS, urls[0]) as running:
        yield running


@pytest.fixture
def far(urls: list[str]) -> Iterator[Processes]:
    with processes(APPS, urls[1]) as running:
        yield running


@pytest.fixture
async def mesh(urls: list[str]) -> AsyncIterator[Mesh]:
    async with Mesh(urls[0], failover=["dc1", "dc2"]) as mesh:
        yield mesh


async def start(services: Processes, count: int) -> list[ServiceProcess]:
    return await asyncio.to_thread(services.start_all, "echo:Echo", count)


async def going_to(mesh: Mesh, *names: str, within: float = 30) -> None:
    followed = mesh.target("echo").subscription
    assert isinstance(followed, Failover)

    async def there() -> bool:
        return followed.tiers == names

    await aeventually(there, within=within)


async def ready(mesh: Mesh, count: int, service: str = "echo") -> None:
    """Wait until the other datacenter's list is known."""

    async def known() -> bool:
        return len(mesh.target(service).subscription.reserve) == count

    await aeventually(known)


def pids(services: list[ServiceProcess]) -> set[str]:
    return {str(each.pid) for each in services}


@pytest.mark.consul
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
async def test_all_of_the_own_datacenter_go_and_come_back(
    mesh: Mesh, near: Processes, far: Processes, how: signal.Signals
) -> None:
    at_home, elsewhere = await start(near, 2), await start(far, 2)
    client = mesh.http("echo")
    await client.get("/who")
    await ready(mesh, 2)

    async def call() -> str:
        return str((await client.get("/who")).raise_for_status().json()["pid"])

    async with Load(call, rate=RATE) as load:
        await load.answered_by(2)
        assert load.answers.keys() == pids(at_home)
        for each in at_home:
            each.send(how)
        await load.answered_by(4)
        assert load.answers.keys() == pids([*at_home, *elsewhere])
        back = await start(near, 2)
        await load.answered_by(6)
        await going_to(mesh, HOME, within=60)
        await asyncio.sleep(0.5)
        load.answers.clear()
        await asyncio.sleep(2)
        # The dead are tried again now and then while they are listed; a call that meets both of
        # them at once goes on to the next place.
        by_far = sum(load.answers[each] for each in pids(elsewhere))
        assert by_far <= 0.05 * sum(load.answers.values())
        assert load.answers.keys() >= pids(back)
    assert load.errors == []


@pytest.mark.consul
async def test_calls_in_flight_to_four_that_are_killed_at_once(
    mesh: Mesh, near: Processes, far: Processes
) -> None:
    """More than a call may try in all: most attempts are refused, and those do not count."""
    at_home, elsewhere = await start(near, 4), await start(far, 2)
    client = mesh.http("echo")
    await client.get("/who")
    await ready(mesh, 2)

    async def call() -> str:
        answer = await client.get("/slow?seconds=0.1")
        return str(answer.raise_for_status().json()["pid"])

    async with Load(call, rate=RATE) as load:
        await load.answered_by(4)
        for each in at_home:
            each.send(signal.SIGKILL)
        await load.answered_by(6)
    assert load.errors == []
    assert load.answers.keys() == pids([*at_home, *elsewhere])


@pytest.mark.consul
async def test_grpc_calls_go_there_too(mesh: Mesh, near: Processes, far: Processes) -> None:
    (at_home,) = await asyncio.to_thread(near.start_all, "echo_rpc:EchoRpc", 1)
    (elsewhere,) = await asyncio.to_thread(far.start_all, "echo_rpc:EchoRpc", 1)
    stub = mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc")

    async def call() -> str:
        return str((await stub.Look(echo_pb2.EchoRequest(text="x"))).instance)

    await call()
    await ready(mesh, 1, service="echo-rpc")
    async with Load(call, rate=RATE) as load:
        await load.answered_by(1)
        at_home.send(signal.SIGKILL)
        await load.answered_by(2)
    assert load.errors == []
    assert load.answers.keys() == pids([at_home, elsewhere])


@pytest.mark.consul
async def test_the_own_registry_is_lost_and_then_its_instances(
    mesh: Mesh,
    near: Processes,
    far: Processes,
    consul_datacenters: list[ConsulCluster],
) -> None:
    at_home, elsewhere = await start(near, 2), await start(far, 1)
    client = mesh.http("echo")
    await client.get("/who")
    await ready(mesh, 1)

    async def call() -> str:
        return str((await client.get("/who")).raise_for_status().json()["pid"])

    async with Load(call, rate=RATE) as load:
        await load.answered_by(2)
        consul_datacenters[0].servers[0].kill()
        await asyncio.sleep(1)
        assert load.answers.keys() == pids(at_home)
        for each in at_home:
            each.send(signal.SIGKILL)
        await load.answered_by(3)
    assert load.errors == []
    assert load.answers.keys() == pids([*at_home, *elsewhere])


@pytest.mark.consul
async def test_a_datacenter_that_nobody_knows(
    urls: list[str], near: Processes, far: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    (away,) = await start(far, 1)
    async with Mesh(urls[0], failover=["dc7", "dc2"]) as mesh:
        assert (await mesh.http("echo").get("/who")).json()["pid"] == away.pid
        with pytest.raises(Exception, match="no instance is registered"):
            await mesh.http("nobody").get("/who")
    warnings = [each.getMessage() for each in caplog.records if "dc7" in each.getMessage()]
    assert len(warnings) == 1
    assert "knows no datacenter 'dc7', only dc1, dc2" in warnings[0]


def test_a_registry_without_datacenters_is_refused_at_the_start() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "meshkit", "run", "echo:Echo"],
        cwd=APPS,
        env=environment({"MESHKIT_FAILOVER": "dc2"}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "local:// has no datacenters: the setting failover needs a registry that has" in line
