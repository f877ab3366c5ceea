"""``consul://`` against a real agent: the contract, and what others read of us and we of them."""

import asyncio
import dataclasses
import sys
import time
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.message
import dns.rdatatype
import dns.rdtypes.IN.SRV
import pytest

from meshkit.errors import LeaseLost, RegistryUnavailable
from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_contract import Opener, RegistryContract
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.servers import Consul
from tests.servers.fixtures import MakeConsul

pytestmark = pytest.mark.consul

TTL = 10.0

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


class TestConsul(RegistryContract):
    @pytest.fixture
    def opener(self, consul: Consul) -> Opener:
        self.agent = consul
        return lambda: open_registry(consul.url)

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.agent.put(f"/v1/agent/service/deregister/{instance.id}")


@pytest.fixture
async def registry(consul: Consul) -> AsyncIterator[Registry]:
    async with open_registry(consul.url) as registry:
        yield registry


# --- what others read -----------------------------------------------------------------------------


async def test_catalog_shows_it_right(consul: Consul, registry: Registry) -> None:
    await registry.register(USERS)
    (entry,) = consul.get("/v1/catalog/service/users")
    assert entry["ServiceID"] == "users-1a2b"
    assert (entry["ServiceAddress"], entry["ServicePort"]) == ("10.1.2.3", 8000)
    assert entry["ServiceTags"] == ["blue", "canary"]
    assert entry["ServiceMeta"] == {
        "team": "accounts",
        "version": "1.4.2",
        "meshkit-zone": "a",
        "meshkit-status": "up",
        "meshkit-started-at": "1763884800.5",
    }
    assert entry["ServiceWeights"]["Passing"] == 7
    addresses = entry["ServiceTaggedAddresses"]
    assert addresses["http"] == {"Address": "10.1.2.3", "Port": 8000}
    assert addresses["grpc"] == {"Address": "10.1.2.4", "Port": 9000}


async def test_passing_readers_see_only_who_is_up(consul: Consul, registry: Registry) -> None:
    def passing() -> list[str]:
        entries = consul.get("/v1/health/service/users?passing")
        return [entry["Service"]["ID"] for entry in entries]

    for status in (Status.STARTING, Status.UP, Status.DRAINING, Status.UP, Status.DOWN):
        await registry.register(dataclasses.replace(USERS, status=status))
        assert passing() == (["users-1a2b"] if status is Status.UP else [])
        (check,) = consul.get("/v1/health/checks/users")
        assert check["Status"] == ("passing" if status is Status.UP else "critical")
        assert check["CheckID"] == "service:users-1a2b"


async def test_consuls_dns_answers_with_address_port_and_weight(
    consul: Consul, registry: Registry
) -> None:
    others = [
        dataclasses.replace(
            USERS, id=f"users-{n}", weight=n, endpoints={"http": Endpoint(f"10.1.3.{n}", 8000 + n)}
        )
        for n in range(1, 5)
    ]
    for instance in others:
        await registry.register(instance)
    query = dns.message.make_query("users.service.consul.", "SRV", use_edns=0, payload=4096)
    answer = await dns.asyncquery.udp(query, "127.0.0.1", port=consul.ports.dns, timeout=5)
    addresses = {
        record.name: item.address
        for record in answer.additional
        if record.rdtype == dns.rdatatype.A
        for item in record
    }
    found = {
        (addresses[item.target], item.port, item.weight)
        for rrset in answer.answer
        for item in rrset
    }
    assert found == {(f"10.1.3.{n}", 8000 + n, n) for n in range(1, 5)}
    tagged = dns.message.make_query("canary.users.service.consul.", "SRV", use_edns=0)
    answer = await dns.asyncquery.udp(tagged, "127.0.0.1", port=consul.ports.dns, timeout=5)
    assert sum(len(rrset) for rrset in answer.answer) >= 3


async def test_grpc_only_has_its_port_as_the_main_one(consul: Consul, registry: Registry) -> None:
    await registry.register(
        dataclasses.replace(USERS, endpoints={"grpc": Endpoint("10.1.2.4", 9000)})
    )
    (entry,) = consul.get("/v1/catalog/service/users")
    assert (entry["ServiceAddress"], entry["ServicePort"]) == ("10.1.2.4", 9000)
    assert "http" not in entry["ServiceTaggedAddresses"]


async def test_heartbeats_change_no_catalog_data(consul: Consul, registry: Registry) -> None:
    lease = await registry.register(USERS)
    before = consul.get("/v1/health/service/users")
    for _ in range(5):
        await registry.renew(lease)
    await registry.register(USERS)
    assert consul.get("/v1/health/service/users") == before


# --- what we read of others -----------------------------------------------------------------------


async def test_services_of_other_origin_are_read(consul: Consul, registry: Registry) -> None:
    consul.put("/v1/agent/service/register", {"Name": "web"})
    consul.put(
        "/v1/agent/service/register",
        {
            "ID": "10.0.0.7:80/web",
            "Name": "web",
            "Port": 80,
            "Address": "10.0.0.7",
            "Tags": ["old"],
            "Meta": {"version": "0.9", "team": "legacy"},
            "Weights": {"Passing": 3, "Warning": 1},
            "Check": {"TTL": "30s"},
        },
    )
    bare, full = sorted((await registry.instances("web")).instances, key=lambda each: each.weight)
    assert (bare.id, bare.endpoints, bare.status) == ("web", {}, Status.UP)
    assert full.endpoints == {"http": Endpoint("10.0.0.7", 80)}
    assert (full.tags, full.version, full.weight) == (("old",), "0.9", 3)
    assert full.metadata == {"team": "legacy"}
    assert full.status is Status.DOWN  # its check has never passed
    (web,) = await registry.services()
    assert (web.name, web.tags, web.instances) == ("web", ("old",), 2)


async def test_reading_from_a_datacenter(consul: Consul, registry: Registry) -> None:
    await registry.register(USERS)
    async with open_registry(f"{consul.url}?dc=dc1") as same:
        assert (await same.instances("users")).up
        assert [each.name for each in await same.services()] == ["users"]
    async with open_registry(f"{consul.url}?dc=elsewhere") as other:
        for read in (other.instances("users"), other.services()):
            with pytest.raises(RegistryUnavailable, match="No path to datacenter"):
                await read


async def test_maintenance_by_hand_takes_an_instance_out(
    consul: Consul, registry: Registry
) -> None:
    lease = await registry.register(USERS)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).up
        consul.put("/v1/agent/service/maintenance/users-1a2b?enable=true")
        await watched.until(lambda snapshot: not snapshot.up)
        await registry.renew(lease)
        consul.put("/v1/agent/service/maintenance/users-1a2b?enable=false")
        await watched.until(lambda snapshot: len(snapshot.up) == 1)


# --- leases ---------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_expired_lease_is_down_and_comes_back_at_once(
    consul: Consul, registry: Registry
) -> None:
    await registry.register(USERS)
    async with Watched(registry.watch("users"), patience=2 * TTL) as watched:
        assert (await watched.next()).up
        gone = await watched.until(lambda snapshot: not snapshot.up)
        assert [each.status for each in gone.instances] == [Status.DOWN]
        # To register alone would leave the check as it is: critical.
        await registry.register(USERS)
        assert consul.get("/v1/health/service/users?passing")
        await watched.until(lambda snapshot: len(snapshot.up) == 1)


async def test_a_lost_check_is_a_lost_lease(consul: Consul, registry: Registry) -> None:
    lease = await registry.register(USERS)
    consul.put("/v1/agent/check/deregister/service:users-1a2b")
    with pytest.raises(LeaseLost, match="no longer knows users-1a2b"):
        await registry.renew(lease)
    await registry.renew(await registry.register(USERS))


async def test_checks_of_an_earlier_registration_are_replaced(
    consul: Consul, registry: Registry
) -> None:
    check = {"Name": "leftover", "CheckID": "leftover", "TTL": "30s"}
    consul.put(
        "/v1/agent/service/register", {"ID": USERS.id, "Name": USERS.service, "Check": check}
    )
    await registry.register(USERS)
    assert (await registry.instances("users")).up


# --- cost -----------------------------------------------------------------------------------------


async def test_a_watch_on_an_unknown_service_does_not_spin(make_consul: MakeConsul) -> None:
    """Where nothing was ever removed, such a query wakes at every change of any service."""
    consul = make_consul()
    started = time.monotonic()
    async with (
        open_registry(consul.url) as registry,
        Watched(registry.watch("unknown")) as watched,
    ):
        await watched.next()
        for n in range(100):
            body = {"ID": f"noise-{n}", "Name": "noise"}
            await asyncio.to_thread(consul.put, "/v1/agent/service/register", body)
            await watched.nothing(seconds=0.02)
    asked = consul.log.count("url=/v1/health/service/unknown")
    elapsed = time.monotonic() - started
    assert 5 <= asked <= 12 + 5 * elapsed, "10 at once and 5 a second, not one per change"


async def test_open_and_close_leave_nothing_behind(consul: Consul) -> None:
    def used() -> tuple[int, int]:
        return open_files(), len(asyncio.all_tasks())

    async def cycle() -> None:
        async with open_registry(consul.url) as registry:
            lease = await registry.register(USERS)
            await registry.renew(lease)
            assert (await registry.instances("users")).up
            assert await registry.services()

    await cycle()
    before = used()
    for _ in range(200):
        await cycle()
    assert used() == before


async def test_a_cancelled_watch_closes_its_connection_at_once(
    consul: Consul, registry: Registry
) -> None:
    before = open_files()
    for _ in range(20):
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            await watched.nothing(seconds=0.01)
    await asyncio.sleep(0)
    assert open_files() <= before + 1


WHOLE_LIFE = """
import asyncio, sys
from meshkit.model import Instance
from meshkit.registry import open_registry

async def main():
    async with open_registry(sys.argv[1]) as registry:
        lease = await registry.register(Instance(id="users-1", service="users"))
        await registry.renew(lease)
        print("consul" in sys.modules, "requests" in sys.modules)
        assert (await registry.instances("users")).up
        assert await registry.services()
        await registry.deregister("users-1")
        print("consul" in sys.modules)

asyncio.run(main(), debug=True)
"""


async def test_a_whole_life_without_a_warning(consul: Consul) -> None:
    """And without importing the slow library until something is read."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-X", "dev", "-c", WHOLE_LIFE, consul.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    shown, complaints = await process.communicate()
    # asyncio's debug mode reports the library's import as a slow step: that is no warning.
    serious = [
        line for line in complaints.decode().splitlines() if not line.startswith("Executing")
    ]
    assert (shown.decode().split(), serious, process.returncode) == (
        ["False", "False", "True"],
        [],
        0,
    )
