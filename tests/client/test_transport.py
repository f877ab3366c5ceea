"""Which of three errors a fault becomes. The table is the safety of retries: pinned row by row."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from meshkit.client.http1 import Http1Transport
from meshkit.client.transport import HttpTransport, RawResponse, Request
from meshkit.errors import CallTimeout, ConnectError, ConnectionLost
from meshkit.model import Endpoint
from tests.client.http_servers import (
    Handler,
    Server,
    close_after_reading,
    http_answer,
    never_answer,
    raw_server,
    read_request,
    refusing,
    request_to,
    reset,
    reset_after_reading,
    streamed,
    whole,
)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = Http1Transport()
    yield made
    await made.aclose()


Send = Callable[[HttpTransport, Request], Coroutine[Any, Any, RawResponse]]
ways = pytest.mark.parametrize("send", [whole, streamed])


@ways
async def test_a_complete_answer(transport: HttpTransport, send: Send) -> None:
    server = Server(http_answer(201, b"hello", ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")))
    async with raw_server(server) as endpoint:
        answer = await send(transport, request_to(endpoint, "POST", b"body"))
    assert (answer.status_code, answer.http_version, answer.content) == (201, "HTTP/1.1", b"hello")
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert [(each.method, each.target, each.body) for each in server.received] == [
        ("POST", "/x?token=hush", b"body")
    ]


@ways
async def test_nobody_listens(transport: HttpTransport, send: Send) -> None:
    with refusing() as endpoint, pytest.raises(ConnectError, match=r"^refused the connection$"):
        await send(transport, request_to(endpoint, "POST", b"x"))


@ways
async def test_a_host_that_accepts_nothing_surely_got_nothing(
    transport: HttpTransport, send: Send
) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the backlog is full, so further connections are left hanging
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(ConnectError, match=r"^did not accept a connection within 1 s$"):
            await send(transport, request_to(Endpoint(*full.getsockname()), timeout=20))


@pytest.mark.parametrize("host", ["nowhere.invalid", "not a host", "[", "%%"])
async def test_a_host_that_does_not_exist(transport: HttpTransport, host: str) -> None:
    with pytest.raises(ConnectError, match=r"^(can't be reached \(|has an address that is not)"):
        await transport.send(request_to(Endpoint(host, 80)))


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close in an orderly way; a reset may already meet the connecting, which is a refusal."""


async def short_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")


async def reset_in_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await short_body(reader, writer)
    await asyncio.sleep(0.1)
    reset(writer)


async def bad_chunk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc")


async def bad_gzip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(http_answer(200, b"not gzip", ("content-encoding", "gzip")))


async def other_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@ways
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "fault",
    [
        close_at_once,
        close_after_reading,
        reset_after_reading,
        short_body,
        reset_in_body,
        bad_chunk,
        bad_gzip,
        other_protocol,
    ],
)
async def test_what_breaks_after_the_connection_may_have_had_an_effect(
    transport: HttpTransport, send: Send, method: str, fault: Handler
) -> None:
    async with raw_server(fault) as endpoint:
        with pytest.raises(ConnectionLost) as caught:
            await send(transport, request_to(endpoint, method))
    assert "\n" not in str(caught.value)


@ways
async def test_no_answer_in_time(transport: HttpTransport, send: Send) -> None:
    async with raw_server(never_answer) as endpoint:
        with pytest.raises(CallTimeout, match=r"^did not answer in time$"):
            await send(transport, request_to(endpoint, timeout=0.2))


@ways
async def test_no_rest_of_the_answer_in_time(transport: HttpTransport, send: Send) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await short_body(reader, writer)
        await asyncio.sleep(30)

    async with raw_server(stall) as endpoint:
        with pytest.raises(CallTimeout):
            await send(transport, request_to(endpoint, timeout=0.3))


async def test_a_post_after_the_server_closed_the_idle_connection(
    transport: HttpTransport,
) -> None:
    seen = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(http_answer(200, b"hi"))

    async with raw_server(once) as endpoint:
        for _ in range(20):
            answer = await transport.send(request_to(endpoint, "POST", b"x"))
            assert answer.content == b"hi"
            await asyncio.sleep(0.005)
    assert len(seen) == 20  # each once: nothing was sent twice


async def test_connections_are_kept(transport: HttpTransport) -> None:
    server = Server()
    async with raw_server(server) as endpoint:
        for _ in range(5):
            await transport.send(request_to(endpoint))
    assert (server.connections, len(server.received)) == (1, 5)


class Hanging:
    """A server that reads a request, never answers, and says when the client has left."""

    def __init__(self) -> None:
        self.reached, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        self.reached.set()
        with contextlib.suppress(OSError):
            await reader.read()
        self.left.set()


@ways
async def test_cancelling_ends_the_call_at_once(transport: HttpTransport, send: Send) -> None:
    server = Hanging()
    async with raw_server(server) as endpoint, asyncio.timeout(30):
        task = asyncio.create_task(send(transport, request_to(endpoint, timeout=600)))
        await server.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@ways
async def test_a_call_that_is_given_up_is_withdrawn(transport: HttpTransport, send: Send) -> None:
    """The server sees it at once, long before the call's own time is over."""
    cancelled, timed_out = Hanging(), Hanging()
    async with raw_server(cancelled) as first, raw_server(timed_out) as second:
        task = asyncio.create_task(send(transport, request_to(first, timeout=600)))
        async with asyncio.timeout(20):
            await cancelled.reached.wait()
        task.cancel()
        with pytest.raises(CallTimeout):
            await send(transport, request_to(second, timeout=0.5))
        async with asyncio.timeout(20):
            await cancelled.left.wait()
            await timed_out.left.wait()


@ways
async def test_errors_quote_no_url(transport: HttpTransport, send: Send) -> None:
    async with raw_server(close_after_reading) as endpoint:
        with pytest.raises(ConnectionLost) as caught:
            await send(transport, request_to(endpoint))
    # The library's own error quotes it, so a traceback must not show that one.
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert "hush" not in repr(request_to(endpoint))
