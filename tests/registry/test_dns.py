"""``dns://`` against a DNS server in this process: what answers mean, and answers that are wrong.

The real server is in test_dns_consul.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from meshkit.errors import ConfigError, RegistryError, RegistryUnavailable
from meshkit.model import INSTANCE_ID, Endpoint, Instance, Status
from meshkit.registry import Registry, open_registry
from meshkit.testing.reading_contract import Opener, ReadOnlyContract
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.registry.dns_server import TCP, UDP, DnsServer
from tests.servers.ports import free_ports

Serve = Callable[..., Awaitable[DnsServer]]

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


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with contextlib.AsyncExitStack() as stack:

        async def serve(*records: str) -> DnsServer:
            server = DnsServer(records)
            await stack.enter_async_context(server.serving())
            return server

        yield serve


@contextlib.asynccontextmanager
async def opened(server: DnsServer, rest: str = "test") -> AsyncIterator[Registry]:
    async with open_registry(f"dns://{server.address}/{rest}") as registry:
        yield registry


async def listed(server: DnsServer, rest: str = "test") -> tuple[Instance, ...]:
    async with opened(server, rest) as registry:
        return (await registry.instances("users")).instances


async def failure(server: DnsServer) -> str:
    """Return the one line that a read fails with; it is never an empty list."""
    with pytest.raises(RegistryUnavailable) as caught:
        await listed(server)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value).replace(server.address, "SERVER")


class TestDns(ReadOnlyContract):
    @pytest.fixture
    async def opener(self, serve: Serve) -> Opener:
        server = await serve()
        return lambda: open_registry(f"dns://{server.address}/test")


# --- what answers mean ----------------------------------------------------------------------------


async def test_kubernetes_headless_service(serve: Serve) -> None:
    server = await serve(*KUBERNETES)
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


async def test_skydns_with_a_group_in_reserve(serve: Serve) -> None:
    server = await serve(*SKYDNS)
    async with opened(server, "skydns.local") as registry, contextlib.AsyncExitStack() as stack:
        watched = await stack.enter_async_context(Watched(registry.watch("users"), patience=60))
        first = (await watched.next()).instances
        assert [(each.weight, each.status) for each in first] == [
            (30, Status.UP),
            (60, Status.UP),
            (100, Status.DOWN),
        ]
        assert first[2].endpoints == {"http": Endpoint("2001:db8::1", 8002)}
    server.records = [line for line in server.records if " SRV 10 " not in line]
    (reserve,) = await listed(server, "skydns.local")
    assert (reserve.status, reserve.metadata["priority"]) == (Status.UP, "20")


async def test_priorities_are_compared_within_a_transport(serve: Serve) -> None:
    server = await serve(
        "users.test. 5 IN SRV 10 1 80 a.test.",
        "users-grpc.test. 5 IN SRV 20 1 90 b.test.",
        "a.test. 5 IN A 10.0.0.1",
        "b.test. 5 IN A 10.0.0.2",
    )
    found = await listed(server, "test?http={service}&grpc={service}-grpc")
    assert [each.status for each in found] == [Status.UP, Status.UP]
    assert [set(each.endpoints) for each in found] == [{"http"}, {"grpc"}]


async def test_several_ports_at_an_address_are_not_paired(serve: Serve) -> None:
    """Nobody could say which HTTP port belongs to which gRPC port."""
    server = await serve(
        "users.test. 5 IN SRV 1 1 80 a.test.",
        "users.test. 5 IN SRV 1 1 81 a.test.",
        "users-grpc.test. 5 IN SRV 1 1 90 a.test.",
        "users-grpc.test. 5 IN SRV 1 1 91 a.test.",
        "a.test. 5 IN A 10.0.0.1",
    )
    found = await listed(server, "test?http={service}&grpc={service}-grpc")
    assert [each.id for each in found] == [f"users-10-0-0-1-{port}" for port in (80, 81, 90, 91)]


async def test_targets_that_do_not_come_along_are_asked_for(serve: Serve) -> None:
    server = await serve(
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


async def test_an_alias_of_the_service_is_followed(serve: Serve) -> None:
    server = await serve(
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


async def test_aliases_in_a_circle_are_an_error(serve: Serve) -> None:
    server = await serve("users.test. 5 IN CNAME a.test.", "a.test. 5 IN CNAME users.test.")
    assert "answered nonsense for users.test." in await failure(server)

    def alias_alone(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.answer = answer.answer[:1]
        return answer

    server.twist = alias_alone
    assert "leads from alias to alias" in await failure(server)


async def test_nobody(serve: Serve) -> None:
    """No such name, a name without SRV records, and the record that says so."""
    server = await serve("other.test. 5 IN A 10.0.0.1")
    assert await listed(server) == ()
    server.records = ["users.test. 5 IN A 10.0.0.1"]
    assert await listed(server) == ()
    server.records = ["users.test. 5 IN SRV 0 0 0 ."]
    assert await listed(server) == ()


async def test_ids_are_labels_and_unique(serve: Serve) -> None:
    long = ".".join(["x" * 60] * 3)
    hosts = ["a-b.test", "a.b.test", "a--b.test", f"{long}.one.test", f"{long}.two.test"]
    server = await serve(
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


async def test_weight_nought_is_the_smallest_and_port_nought_is_none(serve: Serve) -> None:
    server = await serve(
        "users.test. 5 IN SRV 1 0 80 a.test.",
        "users.test. 5 IN SRV 1 65535 0 a.test.",
        "a.test. 5 IN A 10.0.0.1",
    )
    without, with_port = await listed(server)
    assert (without.endpoints, without.weight) == ({}, 65535)
    assert (with_port.endpoints, with_port.weight) == ({"http": Endpoint("10.0.0.1", 80)}, 1)


@pytest.mark.parametrize("service", ["Users", "us ers", "users.admin", "_users", "", "x" * 64])
async def test_names_that_no_service_has(serve: Serve, service: str) -> None:
    async with opened(await serve()) as registry:
        with pytest.raises(ConfigError, match="invalid service name"):
            await registry.instances(service)


async def test_services_can_not_be_listed(serve: Serve) -> None:
    async with opened(await serve()) as registry:
        for read in (registry.services(), anext(registry.watch_services())):
            with pytest.raises(RegistryError, match=r"\A.*can't list its services.*\Z"):
                await read


# --- the way of an answer -------------------------------------------------------------------------

FORTY = [
    *(f"users.test. 5 IN SRV 1 1 {8000 + n} host-{n}.test." for n in range(40)),
    *(f"host-{n}.test. 5 IN A 10.0.0.{n}" for n in range(40)),
]


async def test_truncated_answers_are_asked_for_over_tcp(serve: Serve) -> None:
    server = await serve(*FORTY)

    def truncate(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if way == UDP:
            answer.flags |= dns.flags.TC
            answer.answer, answer.additional = [], []
        return answer

    server.twist = truncate
    assert len(await listed(server)) == 40
    assert [way for _, _, way in server.asked] == [UDP, TCP]


async def test_a_server_without_edns_is_asked_over_tcp(serve: Serve) -> None:
    """It may leave records out and say nothing about it, as Consul does."""
    server = await serve(*FORTY)
    server.edns = False

    def three_of_them(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if way == UDP and answer.answer:
            answer.answer = [dns.rrset.from_rdata_list("users.test.", 5, answer.answer[0][:3])]
        return answer

    server.twist = three_of_them
    assert len(await listed(server)) == 40


async def test_an_answer_that_nearly_fills_the_room_is_not_trusted(serve: Serve) -> None:
    """It may have been cut to fit, without a word."""
    server = await serve(*FORTY)

    def as_many_as_fit(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if way == UDP and answer.answer:
            answer.answer = [dns.rrset.from_rdata_list("users.test.", 5, answer.answer[0][:35])]
            assert len(answer.to_wire()) < 4096
        return answer

    server.twist = as_many_as_fit
    assert len(await listed(server)) == 40


@pytest.mark.parametrize("code", [dns.rcode.FORMERR, dns.rcode.NOTIMP])
async def test_a_server_that_refuses_edns_is_asked_without(
    serve: Serve, code: dns.rcode.Rcode
) -> None:
    server = await serve(*FORTY)

    def refuse(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if query.edns >= 0:
            answer = dns.message.make_response(query)
            answer.use_edns(edns=False)
            answer.set_rcode(code)
        return answer

    server.twist = refuse
    assert len(await listed(server)) == 40


async def test_a_lost_datagram_costs_a_second_only(serve: Serve) -> None:
    server = await serve(*FORTY)
    server.twist = lambda query, answer, way: answer if way == TCP else None
    assert len(await listed(server)) == 40


async def test_forged_and_late_datagrams_are_not_taken(serve: Serve) -> None:
    """Nor is one that echoes the query; the right answer then comes over TCP."""
    server = await serve(*FORTY)
    twists = {
        "another id": lambda query, answer: setattr(answer, "id", (query.id + 1) % 65536),
        "another question": lambda query, answer: setattr(
            answer, "question", [dns.rrset.from_text("x.test.", 0, "IN", "SRV")]
        ),
        "an echo": lambda query, answer: setattr(answer, "flags", query.flags),
    }
    for twist in twists.values():

        def forge(
            query: dns.message.Message,
            answer: dns.message.Message,
            way: str,
            twist: Callable[[dns.message.Message, dns.message.Message], None] = twist,
        ) -> dns.message.Message:
            if way == UDP:
                answer.answer = []
                twist(query, answer)
            return answer

        server.twist = forge
        assert len(await listed(server)) == 40


# --- no answer is no empty list -------------------------------------------------------------------


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTAUTH"])
async def test_refusals(serve: Serve, code: str) -> None:
    server = await serve()

    def refuse(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.set_rcode(dns.rcode.from_text(code))
        return answer

    server.twist = refuse
    hint = "; check the domain" if code == "REFUSED" else ""
    assert (
        await failure(server) == f"the DNS server at SERVER answered {code} for users.test.{hint}"
    )


async def test_silence(serve: Serve) -> None:
    server = await serve()
    server.twist = lambda query, answer, way: None
    assert await failure(server) == "the DNS server at SERVER did not answer within 3 s"


async def test_nobody_listens() -> None:
    server = DnsServer()
    error = await failure(server)
    assert error == "the DNS server at SERVER can't be reached: Connection refused"


async def test_no_such_server() -> None:
    async with open_registry("dns://no-such-host.invalid/test") as registry:
        with pytest.raises(RegistryUnavailable, match=r"no-such-host.invalid:53 can't be reached"):
            await registry.instances("users")


@pytest.mark.parametrize(
    ("junk", "said"),
    [
        (b"", "closed the connection without an answer; is it a DNS server?"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection without an answer"),
        (b"\x00\x04junk", "does not speak DNS"),
        (b"\x00\x0c" + bytes(12), "does not speak DNS"),
        (b"\x00\x00", "does not speak DNS"),
    ],
    ids=["nothing", "http", "junk", "zeros", "empty"],
)
async def test_what_answers_is_no_dns_server(junk: bytes, said: str) -> None:
    (port,) = free_ports(1)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(junk)
        writer.close()

    async with (
        await asyncio.start_server(talk, "127.0.0.1", port),
        open_registry(f"dns://127.0.0.1:{port}/test") as registry,
    ):
        with pytest.raises(RegistryUnavailable) as caught:
            await registry.instances("users")
    assert str(caught.value).startswith(f"what answers at 127.0.0.1:{port} {said}")


async def test_records_of_another_name_do_not_count(serve: Serve) -> None:
    server = await serve(*FORTY)

    def rename(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.answer = [dns.rrset.from_text("x.test.", 5, "IN", "SRV", "1 1 80 host-1.test.")]
        return answer

    server.twist = rename
    assert await listed(server) == ()


async def test_an_answer_to_a_name_that_does_not_exist_is_nonsense(serve: Serve) -> None:
    server = await serve(*FORTY)

    def deny(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    server.twist = deny
    assert await failure(server) == "the DNS server at SERVER answered nonsense for users.test."


async def test_several_servers_are_tried_in_order(serve: Serve) -> None:
    one, two, away = await serve(*FORTY), await serve(*FORTY), DnsServer()
    url = f"dns://{away.address},{one.address},{two.address}/test"
    async with open_registry(url) as registry:
        assert len((await registry.instances("users")).instances) == 40
        assert (len(one.asked), len(two.asked)) == (2, 0)  # over UDP, then over TCP

        def fail(
            query: dns.message.Message, answer: dns.message.Message, way: str
        ) -> dns.message.Message:
            answer.set_rcode(dns.rcode.SERVFAIL)
            return answer

        one.twist = fail
        assert len((await registry.instances("users")).instances) == 40
        two.twist = fail
        with pytest.raises(RegistryUnavailable) as caught:
            await registry.instances("users")
    for server in (one, two, away):
        assert f"the DNS server at {server.address} " in str(caught.value)


# --- watches --------------------------------------------------------------------------------------


async def test_a_watch_asks_again_when_the_ttl_has_run_out(serve: Serve) -> None:
    server = await serve("users.test. 0 IN SRV 1 1 80 a.test.", "a.test. 30 IN A 10.0.0.1")
    async with opened(server) as registry, Watched(registry.watch("users")) as watched:
        first = await watched.next()
        assert len(first.instances) == 1
        await watched.nothing(seconds=2.5)
        assert 2 <= len(server.asked) <= 4  # TTL 0 is taken for one second
        server.records[0] = "users.test. 0 IN SRV 1 1 81 a.test."
        second = await watched.next()
        assert (second.instances[0].endpoints["http"].port, second.revision) == (81, 2)
        server.records = []
        assert (await watched.next()).instances == ()
        server.records = ["users.test. 0 IN SRV 1 1 80 a.test.", "a.test. 30 IN A 10.0.0.1"]
        assert (await watched.next()).instances == first.instances


async def test_an_empty_answer_is_true_for_as_long_as_its_soa_says(serve: Serve) -> None:
    server = await serve()
    soa = dns.rrset.from_text("test.", 60, "IN", "SOA", "ns.test. root.test. 1 1 1 1 20")

    def with_soa(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.authority.append(soa)
        return answer

    server.twist = with_soa
    async with opened(server) as registry, Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == ()
        await watched.nothing(seconds=3)
        assert len(server.asked) == 1


async def test_the_smallest_ttl_counts(serve: Serve) -> None:
    server = await serve("users.test. 300 IN SRV 1 1 80 a.test.", "a.test. 1 IN A 10.0.0.1")
    async with opened(server) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        server.records[1] = "a.test. 300 IN A 10.0.0.2"
        (found,) = (await watched.next()).instances
        assert found.endpoints["http"].host == "10.0.0.2"
        asked = len(server.asked)
        await watched.nothing(seconds=3)
        assert len(server.asked) == asked  # 30 s to go


async def test_a_watch_raises_and_the_next_one_lists_again(serve: Serve) -> None:
    server = await serve("users.test. 0 IN SRV 1 1 80 a.test.", "a.test. 30 IN A 10.0.0.1")
    async with opened(server) as registry:
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            server.twist = lambda query, answer, way: b"" if way == UDP else b"x"
            with pytest.raises(RegistryUnavailable):
                await watched.next()
        server.twist = None
        async with Watched(registry.watch("users")) as watched:
            assert len((await watched.next()).instances) == 1


async def test_closing_ends_a_question_under_way(serve: Serve) -> None:
    server = await serve()
    server.twist = lambda query, answer, way: None
    files, tasks = open_files(), len(asyncio.all_tasks())
    registry = open_registry(f"dns://{server.address}/test")
    reads = [asyncio.create_task(registry.instances("users")) for _ in range(5)]
    async with asyncio.timeout(10):
        while len(server.asked) < 5:
            await asyncio.sleep(0.01)
    await registry.aclose()
    for read in reads:
        with pytest.raises(RegistryError, match="is closed"):
            await read
    with pytest.raises(RegistryError, match="is closed"):
        await registry.instances("users")
    await nothing_left(files, tasks)


async def test_cancelling_ends_a_question_under_way(serve: Serve) -> None:
    """Over UDP, over TCP, and among many questions for addresses."""
    server = await serve(*FORTY)
    server.additional = False

    def only_services(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message | None:
        return answer if query.question[0].rdtype == dns.rdatatype.SRV else None

    server.twist = only_services
    files, tasks = open_files(), len(asyncio.all_tasks())
    async with opened(server) as registry:
        for pause in (0.0, 0.05, 0.3, 1.5):
            read = asyncio.create_task(registry.instances("users"))
            await asyncio.sleep(pause)
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read
    await nothing_left(files, tasks)


async def nothing_left(files: int, tasks: int) -> None:
    async with asyncio.timeout(10):
        while open_files() > files or len(asyncio.all_tasks()) > tasks:
            await asyncio.sleep(0.01)
