"""``skydns+etcd://``: the contract, and the records as CoreDNS reads them."""

import dataclasses
import json
import re
import secrets
from collections.abc import AsyncIterator

import pytest

from meshkit.errors import LeaseLost, RegistryError, RegistryUrlError
from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_contract import Opener, RegistryContract
from tests.registry.coredns import CoreDns
from tests.registry.processes import Nursery
from tests.servers.etcd import Etcd
from tests.support.waiting import eventually

pytestmark = pytest.mark.etcd

USERS = Instance(
    id="users-1a2b",
    service="users",
    endpoints={"http": Endpoint("10.1.2.3", 8000), "grpc": Endpoint("10.1.2.4", 9000)},
    weight=7,
)


class TestSkyDns(RegistryContract):
    @pytest.fixture
    def opener(self, etcd: Etcd) -> Opener:
        self.etcd = etcd
        return lambda: open_registry(f"skydns+{etcd.url}/mesh.local")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.etcd.delete(f"/meshkit/services/{instance.service}/{instance.id}")


@pytest.fixture
def name() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def url(etcd: Etcd, name: str) -> str:
    return f"skydns+{etcd.url}/mesh.local?prefix=/{name}/dns&registry=/{name}/mesh"


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    async with open_registry(url) as registry:
        yield registry


@pytest.fixture
def coredns(etcd: Etcd, name: str) -> CoreDns:
    return CoreDns(etcd, path=f"/{name}/dns")


# --- records --------------------------------------------------------------------------------------


async def test_the_layout(etcd: Etcd, name: str, registry: Registry) -> None:
    await registry.register(USERS)
    stored = {key: json.loads(value) for key, value in etcd.entries(f"/{name}/").items()}
    common = {"priority": 10, "weight": 7, "ttl": 5}
    assert stored == {
        f"/{name}/mesh/services/users/users-1a2b": USERS.to_dict(),
        f"/{name}/dns/local/mesh/users/http/users-1a2b": {
            "host": "10.1.2.3",
            "port": 8000,
            **common,
        },
        f"/{name}/dns/local/mesh/users/grpc/users-1a2b": {
            "host": "10.1.2.4",
            "port": 9000,
            **common,
        },
    }


async def test_the_usual_places(etcd: Etcd) -> None:
    instance = dataclasses.replace(USERS, id=f"users-{secrets.token_hex(4)}")
    async with (
        open_registry(f"skydns+{etcd.url}/mesh.local") as registry,
        open_registry(etcd.url) as plain,
    ):
        await registry.register(instance)
        try:
            assert f"/skydns/local/mesh/users/http/{instance.id}" in etcd.entries("/skydns/")
            assert instance in (await plain.instances("users")).instances
        finally:
            await registry.deregister(instance.id)


async def test_names_of_service_transport_and_instance(
    registry: Registry, coredns: CoreDns
) -> None:
    second = dataclasses.replace(
        USERS, id="users-3c4d", weight=21, endpoints={"http": Endpoint("10.1.2.5", 8001)}
    )
    neighbour = dataclasses.replace(USERS, id="a", service="users-admin")
    for instance in (USERS, second, neighbour):
        await registry.register(instance)
    http = {
        (10, 25, 8000, "users-1a2b.http.users.mesh.local", "10.1.2.3"),
        (10, 75, 8001, "users-3c4d.http.users.mesh.local", "10.1.2.5"),
    }
    assert coredns.srv("http.users.mesh.local") == http
    assert coredns.srv("grpc.users.mesh.local") == {
        (10, 100, 9000, "users-1a2b.grpc.users.mesh.local", "10.1.2.4")
    }
    assert {target for *_, target, _ in coredns.srv("users.mesh.local")} == {
        "users-1a2b.http.users.mesh.local",
        "users-1a2b.grpc.users.mesh.local",
        "users-3c4d.http.users.mesh.local",
    }
    assert coredns.addresses("users.mesh.local") == {"10.1.2.3", "10.1.2.4", "10.1.2.5"}
    # How an SRV answer's target is resolved.
    assert coredns.addresses("users-3c4d.http.users.mesh.local") == {"10.1.2.5"}
    assert {each.ttl for each in coredns.records("users.mesh.local")} == {5}
    label = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
    for each in coredns.records("mesh.local"):
        assert all(label.fullmatch(part) for part in each.name.split("."))


async def test_hosts_of_all_kinds(registry: Registry, coredns: CoreDns) -> None:
    for n, host in enumerate(("2001:db8::1", "users.example.org")):
        await registry.register(
            dataclasses.replace(USERS, id=f"users-{n}", endpoints={"http": Endpoint(host, 80)})
        )
    assert coredns.addresses("users.mesh.local") == {"2001:db8::1"}
    assert {target for *_, target, _ in coredns.srv("users.mesh.local")} == {
        "users-0.http.users.mesh.local",
        "users.example.org",
    }


# --- health ---------------------------------------------------------------------------------------


async def test_only_who_is_up_has_records(registry: Registry, coredns: CoreDns) -> None:
    for status in (Status.STARTING, Status.UP, Status.DRAINING, Status.UP, Status.DOWN):
        lease = await registry.register(dataclasses.replace(USERS, status=status))
        await registry.renew(lease)
        count = 2 if status is Status.UP else 0
        assert len(coredns.records("users.mesh.local")) == count
        assert [each.status for each in (await registry.instances("users")).instances] == [status]


async def test_a_changed_endpoint_leaves_no_record(registry: Registry, coredns: CoreDns) -> None:
    await registry.register(dataclasses.replace(USERS, endpoints={"other": Endpoint("::1", 1)}))
    assert len(coredns.records("users.mesh.local")) == 1
    await registry.register(
        dataclasses.replace(USERS, endpoints={"http": Endpoint("10.9.9.9", 9999)})
    )
    assert {(each.host, each.port) for each in coredns.records("mesh.local")} == {
        ("10.9.9.9", 9999)
    }


@pytest.mark.parametrize("by", ["itself", "another"])
async def test_deregistered_by(
    by: str, etcd: Etcd, name: str, url: str, registry: Registry
) -> None:
    await registry.register(USERS)
    async with open_registry(url) as another:
        await (registry if by == "itself" else another).deregister(USERS.id)
    assert etcd.entries(f"/{name}/") == {}


async def test_the_loser_of_an_id_leaves_the_winners_records(
    url: str, registry: Registry, coredns: CoreDns
) -> None:
    await registry.register(USERS)
    async with open_registry(url) as other:
        lease = await other.register(USERS)
        await registry.deregister(USERS.id)
        assert len(coredns.records("users.mesh.local")) == 2
        await other.renew(lease)


async def test_a_record_that_vanished_is_a_lost_lease(
    etcd: Etcd, name: str, registry: Registry, coredns: CoreDns
) -> None:
    lease = await registry.register(USERS)
    etcd.delete(f"/{name}/dns/local/mesh/users/http/users-1a2b")
    with pytest.raises(LeaseLost):
        await registry.renew(lease)
    await registry.renew(await registry.register(USERS))
    assert len(coredns.records("users.mesh.local")) == 2


@pytest.mark.slow
async def test_a_killed_process_has_no_records_after_15_seconds(
    url: str, etcd: Etcd, name: str, coredns: CoreDns
) -> None:
    nursery = Nursery(url)
    try:
        nursery.spawn("one")
        assert nursery.tell("one", "register", "users", "users-1") == "ok"
        assert coredns.addresses("http.users.mesh.local") == {"127.0.0.1"}
        nursery.kill("one")
        eventually(lambda: not etcd.entries(f"/{name}/"), within=15.0)
    finally:
        nursery.close()


# --- bad input ------------------------------------------------------------------------------------


async def test_a_transport_that_is_no_label(etcd: Etcd, name: str, registry: Registry) -> None:
    """It would be an unreadable name for CoreDNS, so nothing at all is stored."""
    for transport in ("web socket", "a/b", "HTTP", ""):
        instance = dataclasses.replace(USERS, endpoints={transport: Endpoint("10.0.0.1", 1)})
        with pytest.raises(RegistryError, match="can't be part of a DNS name"):
            await registry.register(instance)
    assert etcd.entries(f"/{name}/") == {}


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("host", "name the domain, as in skydns+etcd://HOST/mesh.local"),
        ("host/", "name the domain"),
        ("host/mesh_local", "is no domain name"),
        ("host/mesh/local", "is no domain name"),
        ("host/mesh..local", "is no domain name"),
        ("host/mesh.local?prefix=/a%20b", "the prefix '/a b' should be words"),
        ("host/mesh.local?prefix=/&registry=//", "the prefix '/' should be words"),
        ("host/mesh.local?prefix=/a&registry=/a/b", "/a/b is within /a"),
        ("host/mesh.local?prefix=/meshkit", "/meshkit is within /meshkit"),
        ("host/mesh.local?dc=1", "unknown parameter 'dc'; known: prefix, registry"),
        ("host/mesh.local?ca=x", "ca= needs skydns+etcd+tls://"),
    ],
)
def test_bad_urls(rest: str, reason: str) -> None:
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(f"skydns+etcd://{rest}")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
