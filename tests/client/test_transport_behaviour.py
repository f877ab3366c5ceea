"""What else a transport does, and what it leaves to others."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from meshkit.client.http1 import Http1Transport
from meshkit.client.request import StreamedBody
from meshkit.client.transport import HttpTransport
from meshkit.errors import CallError, ConfigError, ConnectError
from meshkit.model import Endpoint
from tests.client.http_servers import (
    Server,
    http_answer,
    never_answer,
    raw_server,
    read_request,
    refusing,
    request_to,
    streamed,
    whole,
)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = Http1Transport()
    yield made
    await made.aclose()


async def test_nothing_happens_behind_the_back_of_the_caller(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(http_answer(302, b"", ("location", "/elsewhere"), ("set-cookie", "id=1")))
    with refusing() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        async with raw_server(server) as endpoint:
            assert (await transport.send(request_to(endpoint))).status_code == 302
            assert (await transport.send(request_to(endpoint))).status_code == 302
    assert [each.target for each in server.received] == ["/x?token=hush"] * 2  # no redirect
    names = {name for each in server.received for name, _ in each.headers}
    assert not names & {"cookie", "referer"}


async def test_a_refused_connection_leaves_the_body_untouched(transport: HttpTransport) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    body = StreamedBody(pieces())
    with refusing() as endpoint, pytest.raises(ConnectError):
        await transport.send(request_to(endpoint, "POST", body))
    begun = body.started
    assert not begun
    server = Server()
    async with raw_server(server) as endpoint:
        await transport.send(request_to(endpoint, "POST", body))
    assert body.started
    assert server.received[0].body == b"onetwo"


async def test_an_error_in_the_callers_body_stays_his(transport: HttpTransport) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError("mine")

    async with raw_server(never_answer) as endpoint:
        with pytest.raises(KeyError, match="mine"):
            await transport.send(request_to(endpoint, "POST", StreamedBody(broken())))


async def test_a_stream_begins_before_its_body_is_there(transport: HttpTransport) -> None:
    proceed = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none")
        await proceed.wait()
        writer.write(b"two")
        await writer.drain()

    async with raw_server(slowly) as endpoint:
        stream = await transport.stream(request_to(endpoint))
        assert await stream.read() == b"one"
        proceed.set()
        assert await stream.read() == b"two"
        assert await stream.read() == b""
        assert await stream.read() == b""
        await stream.aclose()


async def test_the_timeout_of_a_stream_is_per_piece(transport: HttpTransport) -> None:
    async def steadily(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n")
        for _ in range(12):
            await asyncio.sleep(0.3)
            writer.write(b"x")
            await writer.drain()

    async with raw_server(steadily) as endpoint:
        answer = await streamed(transport, request_to(endpoint, timeout=3.0))
    assert answer.content == b"x" * 12  # 3.6 s in all


async def test_an_unread_stream_lets_go_of_its_connection(transport: HttpTransport) -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await reader.read()
        gone.set()

    async with raw_server(endless) as endpoint:
        stream = await transport.stream(request_to(endpoint))
        await stream.aclose()
        await stream.aclose()
        with pytest.raises(ConfigError, match="the stream is closed"):
            await stream.read()
        async with asyncio.timeout(10):
            await gone.wait()


async def test_answers_are_decompressed(transport: HttpTransport) -> None:
    packed = gzip.compress(b"hello" * 100)
    async with raw_server(Server(http_answer(200, packed, ("content-encoding", "gzip")))) as place:
        for send in (whole, streamed):
            assert (await send(transport, request_to(place))).content == b"hello" * 100


async def test_a_header_that_is_not_utf8_is_latin_1(transport: HttpTransport) -> None:
    answer = http_answer(200, b"", ("x-latin", "caf\xe9"), ("x-good", "1"), ("x-good", "2"))
    async with raw_server(Server(answer)) as endpoint:
        headers = (await transport.send(request_to(endpoint))).headers
    assert headers.get_list("x-good") == ["1", "2"]
    assert headers["x-latin"] == "caf\xe9"


async def test_closing() -> None:
    transport = Http1Transport()
    async with raw_server(never_answer) as endpoint:
        running = asyncio.create_task(transport.send(request_to(endpoint)))
        await asyncio.sleep(0.2)
        await transport.aclose()
        await transport.aclose()
        for call in (running, transport.send(request_to(endpoint))):
            with pytest.raises(CallError, match="the HTTP client is closed") as caught:
                await call
            assert type(caught.value) is CallError  # neither sort that another instance may mend


async def test_closing_what_was_never_used() -> None:
    transport = Http1Transport()
    await transport.aclose()
    with pytest.raises(CallError, match="closed"):
        await transport.send(request_to(Endpoint("127.0.0.1", 1)))


def test_the_library_is_loaded_only_with_its_transport() -> None:
    code = (
        "import sys, meshkit.client.http\n"
        "assert 'httptools' not in sys.modules\n"
        "import meshkit.client.http1 as m\n"
        "assert 'httptools' in sys.modules\n"
        "m.Http1Transport()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
