"""The registry goes while consumers run: calls go on with the last good list."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from meshkit import HttpClient, Mesh, NoInstances, RegistryError
from meshkit.discovery.subscription import OLD
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.registry.consul.checks import heartbeat_id
from meshkit.registry.consul.reader import ConsulReader
from tests.servers import Consul
from tests.servers.consul_cluster import ConsulCluster, make_consul_cluster
from tests.servers.fixtures import together
from tests.servers.ports import free_ports
from tests.support.load import Load
from tests.support.processes import Processes, environment
from tests.support.waiting import aeventually, eventually

pytestmark = pytest.mark.consul

ROUNDS = 3

# A consumer that is started while the registry is away; prints what it sees and what it got.
CONSUMER = """
import asyncio, json, sys
from meshkit import Mesh

async def main():
    async with Mesh(sys.argv[1]) as mesh:
        answer = await mesh.http("echo").get("/who")
        snapshot = mesh.target("echo").subscription.snapshot
        seen = {"pid": answer.json()["pid"], "stale": snapshot.stale, "age": snapshot.age}
        print(json.dumps(seen))

asyncio.run(main())
"""


@pytest.fixture
def cluster(consul_program: Path, tmp_path: Path, services: Processes) -> Iterator[ConsulCluster]:
    """A server, and a client agent that the services register with."""
    cluster = make_consul_cluster(consul_program, tmp_path / "consul", servers=1)
    with together(cluster.members):
        services.registry = cluster.client.url
        yield cluster


@pytest.fixture
def agent(make_consul: Callable[..., Consul], services: Processes) -> Consul:
    agent = make_consul()
    services.registry = agent.url
    return agent


async def test_calls_go_on_when_the_registry_is_gone_and_the_list_is_marked_stale(
    agent: Consul, services: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    pids = {each.pid for each in services.start_all("echo:Echo", 2)}
    async with Mesh(agent.url, balancer="round_robin") as mesh:
        client = mesh.http("echo")
        await client.get("/who")
        subscription = mesh.target("echo").subscription
        assert subscription.snapshot
        assert not subscription.snapshot.stale
        with caplog.at_level(logging.INFO, "meshkit"):
            agent.kill()

            async def stale() -> bool:
                return subscription.snapshot is not None and subscription.snapshot.stale

            await aeventually(stale)
            answered = {(await client.get("/who")).json()["pid"] for _ in range(100)}
            assert answered == pids
            assert client.stats.failed == 0
            with pytest.raises(RegistryError, match=agent.address):
                await mesh.instances("echo")
            agent.start()

            async def fresh() -> bool:
                return not await stale()

            await aeventually(fresh)
        lines = [each.getMessage() for each in caplog.records if each.name == "meshkit.discovery"]
        assert len([line for line in lines if "can't be followed" in line]) == 1
        assert len([line for line in lines if "following" in line]) == 1


@pytest.mark.parametrize("outage", [0.0, pytest.param(OLD + 5.0, marks=pytest.mark.slow)])
async def test_an_emptied_registry_does_not_empty_the_list(
    agent: Consul, services: Processes, outage: float
) -> None:
    pids = {each.pid for each in services.start_all("echo:Echo", 2)}
    async with Mesh(agent.url, balancer="round_robin") as mesh:
        client = mesh.http("echo")
        await client.get("/who")
        target = mesh.target("echo")
        sizes = set()
        target.subscription.on_change(lambda snapshot: sizes.add(len(snapshot.up)))
        agent.kill()
        await asyncio.sleep(outage)
        await asyncio.to_thread(agent.start)

        async def registered_again() -> bool:
            await client.get("/who")
            return len(agent.get("/v1/health/service/echo?passing")) == 2

        await aeventually(registered_again)
        answered = {(await client.get("/who")).json()["pid"] for _ in range(20)}
        assert answered == pids
        assert client.stats.failed == 0
        assert min(sizes, default=2) >= 2


async def test_a_consumer_starts_from_disk_when_the_registry_is_gone(
    agent: Consul, services: Processes
) -> None:
    service = services.start("echo:Echo").ready()
    async with Mesh(agent.url) as mesh:
        await mesh.http("echo").get("/who")
    agent.kill()
    ended = subprocess.run(
        [sys.executable, "-c", CONSUMER, agent.url],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen["pid"] == service.pid
    assert seen["stale"] is True
    assert seen["age"] > 0


async def test_without_any_list_the_call_says_why(agent: Consul, tmp_path: Path) -> None:
    agent.kill()
    async with Mesh(agent.url) as mesh:
        with pytest.raises(NoInstances, match=r"^echo: no list of instances: Consul at 127"):
            await mesh.http("echo").get("/who")


async def test_a_hung_registry_fails_no_call(agent: Consul, services: Processes) -> None:
    pids = {each.pid for each in services.start_all("echo:Echo", 2)}
    async with Mesh(agent.url, balancer="round_robin") as mesh:
        client = mesh.http("echo")
        await client.get("/who")
        agent.pause()
        try:
            answered = {(await client.get("/who")).json()["pid"] for _ in range(50)}
        finally:
            agent.resume()
        assert answered == pids


async def test_who_was_not_heard_of_answers_when_the_only_one_listed_as_up_has_ended(
    agent: Consul, services: Processes
) -> None:
    """As after a registry that hung: it finds one heartbeat after the other overdue."""
    env = {"MESHKIT_REGISTRATION": "false"}
    living = [services.start("echo:Echo", env=env).ready() for _ in range(2)]
    (port,) = free_ports(1)
    listed = {each.instance: each.url.removeprefix("http://") for each in living}
    async with open_registry(agent.url) as registry, Mesh(agent.url) as mesh:
        for name, address in (listed | {"echo-ended": f"127.0.0.1:{port}"}).items():
            endpoints = {"http": Endpoint.parse(address)}
            await registry.register(Instance(id=name, service="echo", endpoints=endpoints))
        client = mesh.http("echo")
        await client.get("/who")
        for name in listed:
            agent.put(f"/v1/agent/check/fail/{heartbeat_id(name)}")

            async def overdue(name: str = name) -> bool:
                snapshot = mesh.target("echo").subscription.snapshot
                return snapshot is not None and name not in {each.id for each in snapshot.up}

            await aeventually(overdue)
        for ask in (client.get, client.post):
            path = "/who" if ask == client.get else "/count"
            answered = {(await ask(path)).raise_for_status().json()["pid"] for _ in range(30)}
            assert answered == {each.pid for each in living}
        assert client.stats.failed == 0


@pytest.mark.slow
async def test_a_client_agent_that_is_restarted_twice_fails_no_call(
    cluster: ConsulCluster, services: Processes
) -> None:
    """It leaves with all its services, and the second time soon after it has come back."""
    services.start_all("echo:Echo", 3)
    async with contextlib.AsyncExitStack() as stack:
        loads = []
        for agent in cluster.members:  # one consumer sees the list emptied, one loses the agent
            client = (await stack.enter_async_context(Mesh(agent.url))).http("echo")
            loads.append(await stack.enter_async_context(Load(who(client), rate=25)))
        for load in loads:
            await load.answered_by(3)
        for _ in range(ROUNDS):
            failed = [len(load.errors) for load in loads]
            longest = max([await asyncio.to_thread(restarted, cluster) for _ in range(2)])
            await asyncio.sleep(ConsulReader.settle + 1)  # until every doubt is over
            if longest < ConsulReader.settle:
                break  # else nobody could know that they would come back
        assert longest < ConsulReader.settle, f"they came back only after {longest:.1f} s"
        new = [load.errors[before:] for load, before in zip(loads, failed, strict=True)]
        assert new == [[], []]


def who(client: HttpClient) -> Callable[[], Awaitable[str]]:
    async def call() -> str:
        return str((await client.get("/who")).raise_for_status().json()["pid"])

    return call


def restarted(cluster: ConsulCluster) -> float:
    """Restart the client agent; return the seconds for which the server listed nobody, at most."""

    def listed(count: int) -> bool:
        return len(cluster.servers[0].get("/v1/health/service/echo?passing")) == count

    began = time.monotonic()
    cluster.client.stop()
    eventually(lambda: listed(0), within=30)
    cluster.client.launch()
    eventually(lambda: listed(3), within=60)
    return time.monotonic() - began
