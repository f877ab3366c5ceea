"""``dns://``: what answers mean, from a DNS server in this process.

The real server is in test_dns_consul.py.
"""

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from meshkit.errors import ConfigError, RegistryError
from meshkit.model import INSTANCE_ID, Endpoint, Instance, Status
from meshkit.registry import open_registry
from meshkit.testing.reading_contract import Opener, ReadOnlyContract
from meshkit.testing.unreachable_contract import UnreachableContract
from tests.registry.dns_reads import Serve, failure, listed, opened
from tests.registry.dns_server import UDP, DnsServer

# As CoreDNS answers for a headless service with two pods and two named ports.
SHOP = "users.shop.svc.cluster.local."
KUBERNETES = [
    f"_http._tcp.{SHOP} 5 IN SRV 0 50 8000 10-1-0-7.{SHOP}",
    f"_http._tcp.{SHOP} 5 IN SRV 0 50 8000 10-1-0-8.{SHOP}",
    f"_grpc._tcp.{SHOP} 5 IN SRV 0 50 9000 10-1-0-7.{SHOP}",
    f"_grpc._tcp.{SHOP} 5 IN SRV 0 50 9000 10-1-0-8.{SHOP}",
    f"10-1-0-7.{SHOP} 5 IN A 10.1.0.7",
    f"10-1-0-8.{SHOP} 5 IN A 10.1.0.8",
]
# As CoreDNS's etcd plugin (SkyDNS) answers: priority 10 unless set, targets made of the keys.
SKYDNS = [
    "users.skydns.local. 30 IN SRV 10 30 8000 a1.users.skydns.local.",
    "users.skydns.local. 30 IN SRV 10 60 8001 a2.users.skydns.local.",
    "users.skydns.local. 30 IN SRV 20 100 8002 b1.users.skydns.local.",
    "a1.users.skydns.local. 30 IN A 10.2.0.1",
    "a2.users.skydns.local. 30 IN A 10.2.0.2",
    "b1.users.skydns.local. 30 IN AAAA 2001:db8::1",
]


class TestDns(ReadOnlyContract):
    @pytest.fixture
    async def opener(self, serve_dns: Serve) -> Opener:
        server = await serve_dns()
        return lambda: open_registry(f"dns://{server.address}/test")


class TestDnsIsDown(UnreachableContract):
    @pytest.fixture
    def opener(self) -> Opener:
        url = f"dns://{DnsServer().address}/test"
        return lambda: open_registry(url)


async def test_kubernetes_headless_service(serve_dns: Serve) -> None:
    server = await serve_dns(*KUBERNETES)
    rest = "shop.svc.cluster.local?http=_http._tcp.{service}&grpc=_grpc._tcp.{service}"
    one, two = await listed(server, rest)
    assert one == Instance(
        id="users-10-1-0-7-8000",
        service="users",
        endpoints={"http": Endpoint("10.1.0.7", 8000), "grpc": Endpoint("10.1.0.7", 9000)},
        metadata={"target": "10-1-0-7.users.shop.svc.cluster.local", "priority": "0"},
        weight=50,
    )
    assert two.id == "users-10-1-0-8-8000"
    assert len(server.asked) == 2  # the addresses came along
    assert {way for _, _, way in server.asked} == {UDP}
    (only, _) = await listed(server, "shop.svc.cluster.local?grpc=_grpc._tcp.{service}")
    assert (only.id, only.endpoints) == (
        "users-10-1-0-7-9000",
        {"grpc": Endpoint("10.1.0.7", 9000)},
    )


async def test_skydns_with_a_group_in_reserve(serve_dns: Serve) -> None:
    server = await serve_dns(*SKYDNS)
    first = await listed(server, "skydns.local")
    assert [(each.weight, each.status) for each in first] == [
        (30, Status.UP),
        (60, Status.UP),
        (100, Status.DOWN),
    ]
    assert first[2].endpoints == {"http": Endpoint("2001:db8::1", 8002)}
    server.records = [line for line in server.records if " SRV 10 " not in line]
    (reserve,) = await listed(server, "skydns.local")
    assert (reserve.status, reserve.metadata["priority"]) == (Status.UP, "20")


async def test_priorities_are_compared_within_a_transport(serve_dns: Serve) -> None:
    server = await serve_dns(
        "users.test. 5 IN SRV 10 1 80 a.test.",
        "users-grpc.test. 5 IN SRV 20 1 90 b.test.",
        "a.test. 5 IN A 10.0.0.1",
        "b.test. 5 IN A 10.0.0.2",
    )
    found = await listed(server, "test?http={service}&grpc={service}-grpc")
    assert [each.status for each in found] == [Status.UP, Status.UP]
    assert [set(each.endpoints) for each in found] == [{"http"}, {"grpc"}]


async def test_several_ports_at_an_address_are_not_paired(serve_dns: Serve) -> None:
    """Nobody could say which HTTP port belongs to which gRPC port."""
    server = await serve_dns(
        "users.test. 5 IN SRV 1 1 80 a.test.",
        "users.test. 5 IN SRV 1 1 81 a.test.",
        "users-grpc.test. 5 IN SRV 1 1 90 a.test.",
        "users-grpc.test. 5 IN SRV 1 1 91 a.test.",
        "a.test. 5 IN A 10.0.0.1",
    )
    found = await listed(server, "test?http={service}&grpc={service}-grpc")
    assert [each.id for each in found] == [f"users-10-0-0-1-{port}" for port in (80, 81, 90, 91)]


async def test_targets_that_do_not_come_along_are_asked_for(serve_dns: Serve) -> None:
    server = await serve_dns(
        "users.test. 5 IN SRV 1 1 80 four.test.",
        "users.test. 5 IN SRV 1 1 80 six.test.",
        "users.test. 5 IN SRV 1 1 80 both.test.",
        "users.test. 5 IN SRV 1 1 80 several.test.",
        "users.test. 5 IN SRV 1 1 80 alias.test.",
        "users.test. 5 IN SRV 1 1 80 elsewhere.example.",
        "four.test. 5 IN A 10.0.0.1",
        "six.test. 5 IN AAAA 2001:db8::1",
        "both.test. 5 IN A 10.0.0.2",
        "both.test. 5 IN AAAA 2001:db8::2",
        "several.test. 5 IN A 10.0.0.3",
        "several.test. 5 IN A 10.0.0.4",
        "alias.test. 5 IN CNAME hidden.test.",
        "hidden.test. 5 IN A 10.0.0.5",
    )
    server.additional = False

    def refuse(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if query.question[0].name.to_text() == "elsewhere.example.":
            answer.set_rcode(dns.rcode.REFUSED)
        return answer

    server.twist = refuse
    found = await listed(server)
    assert sorted(each.endpoints["http"].host for each in found) == [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
        "10.0.0.5",
        "2001:db8::1",
        "elsewhere.example",  # left to whoever connects
    ]
    assert {kind for _, kind, _ in server.asked} == {"SRV", "A", "AAAA"}


async def test_an_alias_of_the_service_is_followed(serve_dns: Serve) -> None:
    server = await serve_dns(
        "users.test. 5 IN CNAME accounts.test.",
        "accounts.test. 5 IN SRV 1 1 80 a.test.",
        "a.test. 5 IN A 10.0.0.1",
    )
    assert len(await listed(server)) == 1

    def alias_alone(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if query.question[0].name.to_text() == "users.test.":
            answer.answer, answer.additional = answer.answer[:1], []
        return answer

    server.twist = alias_alone
    assert len(await listed(server)) == 1
    server.records = ["users.test. 5 IN CNAME nowhere.test."]
    assert await listed(server) == ()


async def test_aliases_in_a_circle_are_an_error(serve_dns: Serve) -> None:
    server = await serve_dns("users.test. 5 IN CNAME a.test.", "a.test. 5 IN CNAME users.test.")
    assert "answered nonsense for users.test." in await failure(server)

    def alias_alone(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.answer = answer.answer[:1]
        return answer

    server.twist = alias_alone
    assert "leads from alias to alias" in await failure(server)


async def test_nobody(serve_dns: Serve) -> None:
    """No such name, a name without SRV records, and the record that says so."""
    server = await serve_dns("other.test. 5 IN A 10.0.0.1")
    assert await listed(server) == ()
    server.records = ["users.test. 5 IN A 10.0.0.1"]
    assert await listed(server) == ()
    server.records = ["users.test. 5 IN SRV 0 0 0 ."]
    assert await listed(server) == ()


async def test_ids_are_labels_and_unique(serve_dns: Serve) -> None:
    long = ".".join(["x" * 60] * 3)
    hosts = ["a-b.test", "a.b.test", "a--b.test", f"{long}.one.test", f"{long}.two.test"]
    server = await serve_dns(
        *(f"users.test. 5 IN SRV 1 1 80 {host}." for host in hosts),
        *(f"users.test. 5 IN SRV 1 1 80 v6-{n}.test." for n in (1, 2)),
        "v6-1.test. 5 IN AAAA 2001:db8::1",
        "v6-2.test. 5 IN AAAA 2001:db8:0:1::",
        # The same address and port under three names are one instance, by its best record.
        *(f"users.test. 5 IN SRV {n} {n} 80 same-{n}.test." for n in (1, 2, 3)),
        *(f"same-{n}.test. 5 IN A 10.0.0.1" for n in (1, 2, 3)),
    )
    found = await listed(server)
    ids = [each.id for each in found]
    assert len(set(ids)) == len(hosts) + 2 + 1
    assert ids == sorted(ids)
    assert all(INSTANCE_ID.fullmatch(each) for each in ids)
    assert "users-10-0-0-1-80" in ids
    server.records.reverse()
    assert [each.id for each in await listed(server)] == ids


async def test_weight_nought_is_the_smallest_and_port_nought_is_none(serve_dns: Serve) -> None:
    server = await serve_dns(
        "users.test. 5 IN SRV 1 0 80 a.test.",
        "users.test. 5 IN SRV 1 65535 0 a.test.",
        "a.test. 5 IN A 10.0.0.1",
    )
    without, with_port = await listed(server)
    assert (without.endpoints, without.weight) == ({}, 65535)
    assert (with_port.endpoints, with_port.weight) == ({"http": Endpoint("10.0.0.1", 80)}, 1)


@pytest.mark.parametrize("service", ["Users", "us ers", "users.admin", "_users", "", "x" * 64])
async def test_names_that_no_service_has(serve_dns: Serve, service: str) -> None:
    async with opened(await serve_dns()) as registry:
        with pytest.raises(ConfigError, match="invalid service name"):
            await registry.instances(service)


async def test_services_can_not_be_listed(serve_dns: Serve) -> None:
    async with opened(await serve_dns()) as registry:
        for read in (registry.services(), anext(registry.watch_services())):
            with pytest.raises(RegistryError, match=r"\A.*can't list its services.*\Z"):
                await read
