"""Watches of ``dns://``: when they ask again, and how they end."""

import asyncio
import sys

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.registry import open_registry
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.registry.dns_reads import FORTY, Serve, nothing_left, opened
from tests.registry.dns_server import UDP


async def test_a_watch_asks_again_when_the_ttl_has_run_out(serve_dns: Serve) -> None:
    server = await serve_dns("users.test. 0 IN SRV 1 1 80 a.test.", "a.test. 30 IN A 10.0.0.1")
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


async def test_an_empty_answer_is_true_for_as_long_as_its_soa_says(serve_dns: Serve) -> None:
    server = await serve_dns()
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


async def test_the_smallest_ttl_counts(serve_dns: Serve) -> None:
    server = await serve_dns("users.test. 300 IN SRV 1 1 80 a.test.", "a.test. 1 IN A 10.0.0.1")
    async with opened(server) as registry, Watched(registry.watch("users")) as watched:
        await watched.next()
        server.records[1] = "a.test. 300 IN A 10.0.0.2"
        (found,) = (await watched.next()).instances
        assert found.endpoints["http"].host == "10.0.0.2"
        asked = len(server.asked)
        await watched.nothing(seconds=3)
        assert len(server.asked) == asked  # 30 s to go


async def test_a_watch_raises_and_the_next_one_lists_again(serve_dns: Serve) -> None:
    server = await serve_dns("users.test. 0 IN SRV 1 1 80 a.test.", "a.test. 30 IN A 10.0.0.1")
    async with opened(server) as registry:
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            server.twist = lambda query, answer, way: b"" if way == UDP else b"x"
            with pytest.raises(RegistryUnavailable):
                await watched.next()
        server.twist = None
        async with Watched(registry.watch("users")) as watched:
            assert len((await watched.next()).instances) == 1


async def test_closing_ends_a_question_under_way(serve_dns: Serve) -> None:
    server = await serve_dns()
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


async def test_cancelling_ends_a_question_under_way(serve_dns: Serve) -> None:
    """Over UDP, over TCP, and among many questions for addresses."""
    server = await serve_dns(*FORTY)
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


CANCEL_MANY = """
import asyncio, sys, uvloop
from meshkit.registry import open_registry
from meshkit.testing.registry_fixtures import open_files

async def cancel_many(times):
    async with open_registry(sys.argv[1]) as registry:
        for turn in range(times):
            read = asyncio.create_task(registry.instances("users"))
            for _ in range(turn % 8):
                await asyncio.sleep(0)
            read.cancel()
            await asyncio.wait({read})
    await asyncio.sleep(0.1)
    return open_files()

async def main():
    first = await cancel_many(16)
    print(await cancel_many(80) - first)

uvloop.run(main())
"""


async def test_cancelling_leaves_no_socket_on_uvloop_either(serve_dns: Serve) -> None:
    """Services run on it, and it keeps a datagram socket whose making was cancelled."""
    pytest.importorskip("uvloop")
    server = await serve_dns()
    server.twist = lambda query, answer, way: None
    command = [sys.executable, "-c", CANCEL_MANY, f"dns://{server.address}/test"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert (process.returncode, int(output)) == (0, 0)
