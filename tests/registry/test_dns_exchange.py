"""How ``dns://`` gets a whole answer, and that none is never an empty list."""

import asyncio
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from meshkit.errors import RegistryUnavailable
from meshkit.registry import open_registry
from tests.registry.dns_reads import FORTY, Serve, failure, listed
from tests.registry.dns_server import TCP, UDP, DnsServer
from tests.servers.ports import free_ports

# --- the way of an answer -------------------------------------------------------------------------


async def test_truncated_answers_are_asked_for_over_tcp(serve_dns: Serve) -> None:
    server = await serve_dns(*FORTY)

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


async def test_a_server_without_edns_is_asked_over_tcp(serve_dns: Serve) -> None:
    """It may leave records out and say nothing about it, as Consul does."""
    server = await serve_dns(*FORTY)
    server.edns = False

    def three_of_them(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        if way == UDP and answer.answer:
            answer.answer = [dns.rrset.from_rdata_list("users.test.", 5, answer.answer[0][:3])]
        return answer

    server.twist = three_of_them
    assert len(await listed(server)) == 40


async def test_an_answer_that_nearly_fills_the_room_is_not_trusted(serve_dns: Serve) -> None:
    """It may have been cut to fit, without a word."""
    server = await serve_dns(*FORTY)

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
    serve_dns: Serve, code: dns.rcode.Rcode
) -> None:
    server = await serve_dns(*FORTY)

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


async def test_a_lost_datagram_costs_a_second_only(serve_dns: Serve) -> None:
    server = await serve_dns(*FORTY)
    server.twist = lambda query, answer, way: answer if way == TCP else None
    assert len(await listed(server)) == 40


async def test_forged_and_late_datagrams_are_not_taken(serve_dns: Serve) -> None:
    """Nor is one that echoes the query; the right answer then comes over TCP."""
    server = await serve_dns(*FORTY)
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
async def test_refusals(serve_dns: Serve, code: str) -> None:
    server = await serve_dns()

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


async def test_silence(serve_dns: Serve) -> None:
    server = await serve_dns()
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


async def test_records_of_another_name_do_not_count(serve_dns: Serve) -> None:
    server = await serve_dns(*FORTY)

    def rename(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.answer = [dns.rrset.from_text("x.test.", 5, "IN", "SRV", "1 1 80 host-1.test.")]
        return answer

    server.twist = rename
    assert await listed(server) == ()


async def test_an_answer_to_a_name_that_does_not_exist_is_nonsense(serve_dns: Serve) -> None:
    server = await serve_dns(*FORTY)

    def deny(
        query: dns.message.Message, answer: dns.message.Message, way: str
    ) -> dns.message.Message:
        answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    server.twist = deny
    assert await failure(server) == "the DNS server at SERVER answered nonsense for users.test."


async def test_several_servers_are_tried_in_order(serve_dns: Serve) -> None:
    one, two, away = await serve_dns(*FORTY), await serve_dns(*FORTY), DnsServer()
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
