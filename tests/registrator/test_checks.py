"""Checks that we run ourselves, against real servers of each kind, and what comes of them."""

import asyncio
import contextlib
import dataclasses
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from meshkit.model import Endpoint, Status
from meshkit.registrator.checks import Checks
from meshkit.registrator.counters import Counters
from meshkit.registrator.options import Options
from meshkit.registrator.page import Page
from meshkit.registrator.probes import Unwell, look
from meshkit.registrator.record import Check, CheckKind, Record
from tests.faults.certificates import Certificates
from tests.support.waiting import aeventually


@dataclasses.dataclass
class Web:
    """Answers each request with ``answer``, or not at all."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    requests: list[str] = dataclasses.field(default_factory=list)
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if not self.answer:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
        writer.close()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    web = Web()
    async with await asyncio.start_server(web.handle, "127.0.0.1", 0) as server:
        web.port = server.sockets[0].getsockname()[1]
        yield web


def at(port: int) -> Endpoint:
    return Endpoint("127.0.0.1", port)


def record(port: int, check: Check | None, **more: Any) -> Record:
    fields: dict[str, Any] = {
        "id": f"host:web:{port}",
        "name": "users",
        "host": "127.0.0.1",
        "port": port,
        "container_id": "c" * 64,
        "container_name": "web",
        "private_port": 80,
        "check": check,
    }
    return Record(**fields | more)


async def test_http(web: Web) -> None:
    check = Check(kind="http", path="/health?deep=1", method="HEAD", timeout=10)
    await look(at(web.port), check)
    head = web.requests[0].splitlines()
    assert head[0] == "HEAD /health?deep=1 HTTP/1.1"
    assert f"Host: 127.0.0.1:{web.port}" in head
    web.answer = b"HTTP/1.1 429 Too Many Requests\r\n\r\n"
    await look(at(web.port), check)
    for answer, reason in (
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "is answered with 503"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", "is answered with 301"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"x" * 200_000, "."),
        (b"\r\n", "not HTTP"),
    ):
        web.answer = answer
        with pytest.raises(Unwell, match=reason):
            await look(at(web.port), check)


async def test_silence_and_nobody(web: Web, free_tcp_port: int) -> None:
    web.answer = b""
    with pytest.raises(Unwell, match=r"no answer within 0\.2 s"):
        await look(at(web.port), Check(kind="http", path="/", timeout=0.2))
    nobody = at(free_tcp_port)
    kinds: tuple[CheckKind, ...] = ("http", "https", "tcp")
    for kind in kinds:
        with pytest.raises(Unwell, match="Connection refused"):
            await look(nobody, Check(kind=kind, path="/"))
    with pytest.raises(Unwell, match="UNAVAILABLE"):
        await look(nobody, Check(kind="grpc"))
    await look(at(web.port), Check(kind="tcp"))


async def test_certificates(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    made.issue("web")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.cert("web"), made.key("web"))
    web = Web()
    async with await asyncio.start_server(web.handle, "127.0.0.1", 0, ssl=context) as server:
        address = at(server.sockets[0].getsockname()[1])
        with pytest.raises(Unwell, match="certificate verify failed"):
            await look(address, Check(kind="https", path="/"))
        await look(address, Check(kind="https", path="/", skip_verify=True))
        await look(address, Check(kind="grpc", use_tls=True, skip_verify=True))
        with pytest.raises(Unwell, match="not HTTP"):
            await look(address, Check(kind="http", path="/"))


async def test_grpc() -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await look(at(port), Check(kind="grpc"))
        await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        with pytest.raises(Unwell, match="NOT_SERVING"):
            await look(at(port), Check(kind="grpc"))
        with pytest.raises(Unwell, match="NOT_FOUND"):
            await look(at(port), Check(kind="grpc", path="/unknown"))
    finally:
        await server.stop(None)


async def judged(checks: Checks, *records: Record) -> list[Status | None]:
    """Return what becomes of each; None for those that nothing is known of yet."""
    found, undecided = checks.judge(records)
    return [None if each.id in undecided else each.status for each in found]


async def test_results_count_for_as_long_as_they_can(web: Web) -> None:
    news = asyncio.Event()
    async with contextlib.aclosing(Checks(news.set)) as checks:
        one = record(web.port, Check(kind="http", path="/", interval=0.05))
        assert await judged(checks, one) == [None]
        await checks.decide([one])
        assert await judged(checks, one) == [Status.UP]
        news.clear()
        web.answer = b"HTTP/1.1 500 Oops\r\n\r\n"
        await asyncio.wait_for(news.wait(), 30)
        assert await judged(checks, one) == [Status.DOWN]
        draining = dataclasses.replace(one, status=Status.DRAINING)
        assert await judged(checks, draining) == [Status.DRAINING]
        news.clear()
        web.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        await asyncio.wait_for(news.wait(), 30)
        assert await judged(checks, one) == [Status.UP]
        # Another container at the same address has all before it.
        assert await judged(checks, dataclasses.replace(one, container_id="d" * 64)) == [None]
        assert await judged(checks, dataclasses.replace(one, check=None)) == [Status.UP]
        assert await judged(checks) == []


async def test_what_is_down_for_long_is_left_out(
    free_tcp_port: int,
) -> None:
    async with contextlib.aclosing(Checks(lambda: None)) as checks:
        check = Check(kind="tcp", interval=0.05, deregister_after=0.3)
        one = record(free_tcp_port, check)
        await checks.decide([one])

        async def gone() -> bool:
            return await judged(checks, one) == []

        await aeventually(gone)
        well = record(1, Check(kind="tcp", initial_status="passing", interval=60))
        assert await judged(checks, one, well) == [Status.UP]


async def test_ttl_is_told_by_http(caplog: pytest.LogCaptureFixture) -> None:
    one = record(80, Check(kind="ttl", ttl=0.5))
    async with contextlib.aclosing(Checks(lambda: None, hears=True)) as checks:
        page = Page(Counters(), Options(), checks)
        assert await judged(checks, one) == [Status.DOWN]

        def tell(path: str) -> bytes:
            return page.answer(f"PUT /v1/agent/check/{path} HTTP/1.1").partition(b"\r\n")[0]

        assert tell(f"pass/service:{one.id}?note=fine") == b"HTTP/1.1 200 OK"
        assert await judged(checks, one) == [Status.UP]
        assert tell(f"fail/service:{one.id.replace(':', '%3A')}") == b"HTTP/1.1 200 OK"
        assert await judged(checks, one) == [Status.DOWN]
        assert tell(f"warn/service:{one.id}") == b"HTTP/1.1 200 OK"
        assert await judged(checks, one) == [Status.UP]

        async def silent() -> bool:
            return await judged(checks, one) == [Status.DOWN]

        await aeventually(silent)
        assert tell("pass/service:other") == b"HTTP/1.1 404 Not Found"
    async with contextlib.aclosing(Checks(lambda: None)) as checks:
        for _ in range(3):
            assert await judged(checks, one) == [Status.UP]
    assert caplog.text.count("a TTL check needs --health-port") == 1


@pytest.mark.parametrize("kind", ["cmd", "script"])
async def test_a_command_is_not_run_here(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with contextlib.aclosing(Checks(lambda: None)) as checks:
        one = record(80, Check(kind=kind, command="true"))
        assert await judged(checks, one) == [Status.UP]
    assert "run by Consul only" in caplog.text
