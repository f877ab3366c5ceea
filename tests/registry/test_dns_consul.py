"""``dns://`` against the DNS of a real Consul agent."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshkit import Mesh
from meshkit.discovery.subscription import Subscription
from meshkit.errors import RegistryUnavailable
from meshkit.model import Endpoint, Instance, Snapshot
from meshkit.registry import Registry, open_registry
from meshkit.testing.reading_contract import Opener, ReadOnlyContract
from meshkit.testing.watched import Watched
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.servers import Consul
from tests.servers.fixtures import MakeConsul
from tests.support.load import Load
from tests.support.processes import ROOT, Processes, environment, processes

pytestmark = pytest.mark.consul

APPS = Path(__file__).parents[1] / "support" / "apps"
PATIENCE = 15.0
RATE = 100


def dns_url(consul: Consul, domain: str = "service.consul") -> str:
    return f"dns://127.0.0.1:{consul.ports.dns}/{domain}"


def register(consul: Consul, number: int, **fields: Any) -> None:
    body = {
        "ID": f"users-{number}",
        "Name": "users",
        "Address": f"10.0.0.{number}",
        "Port": 8000 + number,
    }
    consul.put("/v1/agent/service/register", body | fields)


def hosts(snapshot: Snapshot) -> list[str]:
    return sorted(each.endpoints["http"].host for each in snapshot.instances)


@pytest.fixture
async def registry(consul: Consul) -> AsyncIterator[Registry]:
    async with open_registry(dns_url(consul)) as registry:
        yield registry


class TestDnsOfConsul(ReadOnlyContract):
    @pytest.fixture
    def opener(self, consul: Consul) -> Opener:
        return lambda: open_registry(dns_url(consul))


# --- what is read ---------------------------------------------------------------------------------


async def test_one(consul: Consul, registry: Registry) -> None:
    register(consul, 7, Weights={"Passing": 5, "Warning": 1})
    (found,) = (await listed(registry, 1)).instances
    assert found == Instance(
        id="users-10-0-0-7-8007",
        service="users",
        endpoints={"http": Endpoint("10.0.0.7", 8007)},
        metadata={"target": "0a000007.addr.dc1.consul", "priority": "1"},
        weight=5,
    )


async def test_forty(consul: Consul, registry: Registry) -> None:
    for number in range(40):
        register(consul, number)
    snapshot = await listed(registry, 40)
    assert hosts(snapshot) == sorted(f"10.0.0.{number}" for number in range(40))


async def test_all_that_do_not_fit_into_a_datagram(consul: Consul, registry: Registry) -> None:
    """Consul leaves out what is beyond 4096 bytes and does not say so: TCP has all."""
    for number in range(150):
        register(consul, number)
    snapshot = await listed(registry, 150)
    assert len(set(hosts(snapshot))) == 150


async def listed(registry: Registry, count: int) -> Snapshot:
    """Wait until this many are listed."""
    async with asyncio.timeout(PATIENCE):
        while len((snapshot := await registry.instances("users")).instances) != count:
            await asyncio.sleep(0.02)
    return snapshot


async def test_addresses_of_other_kinds(consul: Consul, registry: Registry) -> None:
    register(consul, 1, Address="2001:db8::1")
    register(consul, 2, Address="users.example.org")
    snapshot = await listed(registry, 2)
    assert hosts(snapshot) == ["2001:db8::1", "users.example.org"]


async def test_tags_rfc_2782_and_datacenters_by_name(consul: Consul, registry: Registry) -> None:
    register(consul, 1, Tags=["v1"])
    register(consul, 2, Tags=["v2"])
    await listed(registry, 2)
    for rest, count in {
        "service.consul?http=v2.{service}": 1,
        "service.consul?http=v3.{service}": 0,
        "service.consul?http=_{service}._v1": 1,
        "service.consul?http=_{service}._tcp": 2,
        "service.dc1.consul": 2,
        "service.consul?grpc={service}": 2,
        "service.dc9.consul": 0,
    }.items():
        async with open_registry(dns_url(consul, rest)) as other:
            snapshot = await other.instances("users")
            assert len(snapshot.instances) == count, rest
            transport = "grpc" if "grpc" in rest else "http"
            assert all(set(each.endpoints) == {transport} for each in snapshot.instances)


async def test_changes_are_seen(consul: Consul, registry: Registry) -> None:
    async with (
        Watched(registry.watch("users"), patience=PATIENCE) as watched,
        Watched(registry.watch("users"), patience=PATIENCE) as other,
    ):
        assert (await watched.next()).instances == ()
        register(consul, 1)
        await watched.until(lambda snapshot: hosts(snapshot) == ["10.0.0.1"])
        register(consul, 2, Check={"CheckID": "two", "TTL": "300s", "Status": "passing"})
        both = await watched.until(lambda snapshot: hosts(snapshot) == ["10.0.0.1", "10.0.0.2"])
        assert [each.id for each in both.instances] == sorted(each.id for each in both.instances)
        consul.put("/v1/agent/check/fail/two")
        await watched.until(lambda snapshot: hosts(snapshot) == ["10.0.0.1"])
        consul.put("/v1/agent/check/pass/two")
        await watched.until(lambda snapshot: len(snapshot.instances) == 2)
        consul.put("/v1/agent/service/deregister/users-1")
        last = await watched.until(lambda snapshot: hosts(snapshot) == ["10.0.0.2"])
        assert last.revision > both.revision
        await watched.nothing(seconds=2.5)
        await other.until(lambda snapshot: hosts(snapshot) == ["10.0.0.2"])


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_the_last_list_stays_when_the_server_is_away(
    make_consul: MakeConsul, fault: str
) -> None:
    consul = make_consul()
    register(consul, 1)
    async with open_registry(dns_url(consul)) as registry:
        subscription = Subscription(registry, "users", None)
        try:
            async with asyncio.timeout(PATIENCE):
                while not (await subscription.known()).instances:
                    await asyncio.sleep(0.05)
            getattr(consul, fault)()
            with pytest.raises(RegistryUnavailable) as caught:
                await registry.instances("users")
            said = "Connection refused" if fault == "kill" else "did not answer within 3 s"
            assert said in str(caught.value)
            kept = await becomes(subscription, stale=True)
            assert subscription.error is not None
            assert hosts(kept) == ["10.0.0.1"]
            if fault == "pause":
                consul.resume()
            else:
                await asyncio.to_thread(consul.start)
                register(consul, 1)
            assert hosts(await becomes(subscription, stale=False)) == ["10.0.0.1"]
            assert subscription.error is None
        finally:
            await subscription.aclose()


async def becomes(subscription: Subscription, *, stale: bool) -> Snapshot:
    async with asyncio.timeout(PATIENCE):
        while (snapshot := await subscription.known()).stale != stale:
            await asyncio.sleep(0.05)
    return snapshot


async def test_without_a_leader_it_is_no_empty_list(make_consul: MakeConsul) -> None:
    consul = make_consul(alone=True)
    async with open_registry(dns_url(consul)) as registry:
        with pytest.raises(RegistryUnavailable):
            await registry.instances("users")


async def test_a_domain_that_is_not_consuls(consul: Consul) -> None:
    async with open_registry(dns_url(consul, "service.example")) as registry:
        with pytest.raises(RegistryUnavailable, match=r"REFUSED.*check the domain"):
            await registry.instances("users")


async def test_a_port_that_is_not_dns(consul: Consul) -> None:
    url = f"dns://127.0.0.1:{consul.ports.http}/service.consul"
    async with open_registry(url) as registry:
        with pytest.raises(RegistryUnavailable, match="did not answer within 3 s"):
            await registry.instances("users")


# --- calls by name --------------------------------------------------------------------------------


@pytest.fixture
def fleet(consul: Consul) -> Iterator[Processes]:
    """Services that register with Consul by its HTTP API."""
    with processes(APPS, consul.url) as running:
        yield running


async def test_calls_by_name_and_none_fails_when_one_stops(
    consul: Consul, fleet: Processes
) -> None:
    leaving, *staying = await asyncio.to_thread(fleet.start_all, "echo:Echo", 3)
    async with Mesh(dns_url(consul)) as mesh:
        client = mesh.http("echo")

        async def call() -> str:
            return str((await client.post("/count")).json()["pid"])

        async with Load(call, rate=RATE) as load:
            await load.answered_by(3)
            leaving.send(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
            await asyncio.sleep(2)
        assert load.errors == []
        assert load.answers.keys() == {str(each.pid) for each in (leaving, *staying)}
        assert len((await mesh.instances("echo")).up) == 2


RPC_ONLY = """
import os
from meshkit import MeshService
from tests.protos import echo_pb2, echo_pb2_grpc

class Ledger(MeshService, echo_pb2_grpc.EchoServicer):
    name = "ledger"
    async def Say(self, request, context):
        return echo_pb2.EchoReply(text=request.text, instance=str(os.getpid()))
"""


async def test_a_service_of_grpc_alone_is_called(consul: Consul, tmp_path: Path) -> None:
    (tmp_path / "ledger.py").write_text(RPC_ONLY)
    with processes(tmp_path, consul.url) as running:
        leaving, staying = await asyncio.to_thread(running.start_all, "ledger:Ledger", 2)
        url = dns_url(consul, "service.consul?grpc={service}")
        async with Mesh(url) as mesh:
            stub = mesh.grpc(echo_pb2_grpc.EchoStub, "ledger")

            async def call() -> str:
                return str((await stub.Say(echo_pb2.EchoRequest(text="x"))).instance)

            async with Load(call, rate=RATE) as load:
                await load.answered_by(2)
                leaving.send(signal.SIGTERM)
                assert await asyncio.to_thread(leaving.wait) == 0
                await asyncio.sleep(2)
            assert load.errors == []
            assert load.answers.keys() == {str(leaving.pid), str(staying.pid)}


def test_a_service_runs_unregistered_and_calls_others(consul: Consul) -> None:
    with processes(APPS, dns_url(consul)) as running:
        echo = running.start("echo:Echo").ready()
        assert echo.facts["http"]
        echo.send(signal.SIGTERM)
        assert echo.wait(40) == 0
    assert set(consul.get("/v1/catalog/services")) == {"consul"}


# --- the command line -----------------------------------------------------------------------------


def meshkit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshkit", *words],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_ps_needs_a_service(consul: Consul) -> None:
    register(consul, 1)
    deadline = time.monotonic() + PATIENCE
    while (
        "users-10-0-0-1-8001"
        not in (done := meshkit("ps", "users", "--registry", dns_url(consul))).stdout
    ):
        assert time.monotonic() < deadline, done
    assert (done.returncode, done.stderr) == (0, "")
    done = meshkit("ps", "--registry", dns_url(consul))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"meshkit: error: {dns_url(consul)} can't list its services, because DNS has no question "
        "for that: name the one you mean\n"
    )
    done = meshkit("ps", "Us_ers", "--registry", dns_url(consul))
    assert (done.returncode, done.stdout) == (1, "")
    assert "invalid service name 'Us_ers'" in done.stderr
    assert done.stderr.count("\n") == 1
