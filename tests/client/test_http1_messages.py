"""What HTTP/1.1 allows beyond the common answer, and what it does not."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from meshkit.client.http1 import Http1Transport
from meshkit.client.request import StreamedBody
from meshkit.client.transport import RawResponse, Request
from meshkit.errors import AnswerTooLarge, ConfigError, ConnectError, ConnectionLost
from meshkit.model import Endpoint
from tests.client.http_servers import (
    Handler,
    Received,
    Server,
    http_answer,
    raw_server,
    read_request,
    request_to,
    streamed,
    whole,
)

ways = pytest.mark.parametrize("send", [whole, streamed])


@pytest.fixture
async def transport() -> AsyncIterator[Http1Transport]:
    made = Http1Transport()
    yield made
    await made.aclose()


async def answered(transport: Http1Transport, answer: bytes, method: str = "GET") -> RawResponse:
    async with raw_server(Server(answer)) as endpoint:
        return await transport.send(request_to(endpoint, method))


@ways
async def test_interim_answers_are_passed_over(transport: Http1Transport, send: object) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + hints + http_answer(200, b"ok", ("x-a", "1"))
    async with raw_server(Server(answer)) as endpoint:
        got = await (whole if send is whole else streamed)(transport, request_to(endpoint))
    assert (got.status_code, got.content, dict(got.headers)) == (
        200,
        b"ok",
        {"content-length": "2", "x-a": "1"},
    )


@ways
async def test_a_body_that_ends_with_the_connection(
    transport: Http1Transport, send: object
) -> None:
    async def lasting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\none")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"two")

    async with raw_server(lasting) as endpoint:
        got = await (whole if send is whole else streamed)(transport, request_to(endpoint))
    assert got.content == b"onetwo"


@pytest.mark.parametrize("status", [200, 204, 304])
async def test_answers_without_a_body_leave_the_connection_fit(
    transport: Http1Transport, status: int
) -> None:
    def answer(request: Received) -> bytes:
        if request.method == "GET":
            return http_answer(200, b"body")
        length = b"" if status == 204 else b"content-length: 12345\r\n"
        return b"HTTP/1.1 %d X\r\n%b\r\n" % (status, length)

    server = Server(answer)
    async with raw_server(server) as endpoint:
        for _ in range(3):
            head = await transport.send(request_to(endpoint, "HEAD"))
            assert (head.status_code, head.content) == (status, b"")
            assert (await transport.send(request_to(endpoint))).content == b"body"
    assert server.connections == 1


async def test_connection_close_is_heeded(transport: Http1Transport) -> None:
    server = Server(http_answer(200, b"ok", ("connection", "close")))
    async with raw_server(server) as endpoint:
        for _ in range(3):
            await transport.send(request_to(endpoint))
    assert server.connections == 3


async def test_an_answer_nobody_asked_for_reaches_nobody(transport: Http1Transport) -> None:
    """It would be taken for the answer to the next request, and hand out another one's data."""
    bodies = iter([b"first", b"second", b"third"])

    def two_at_once(_: Received) -> bytes:
        return http_answer(200, next(bodies)) + http_answer(200, b"smuggled")

    server = Server(two_at_once)
    async with raw_server(server) as endpoint:
        for body in (b"first", b"second", b"third"):
            assert (await transport.send(request_to(endpoint))).content == body
    assert server.connections == 3


async def test_an_answer_that_comes_while_the_connection_is_idle(
    transport: Http1Transport,
) -> None:
    made = []

    async def eager(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(writer)
        while True:
            await read_request(reader)
            writer.write(http_answer(200, b"%d" % len(made)))
            await asyncio.sleep(0.02)
            writer.write(http_answer(200, b"smuggled"))

    async with raw_server(eager) as endpoint:
        assert (await transport.send(request_to(endpoint))).content == b"1"
        await asyncio.sleep(0.2)
        assert (await transport.send(request_to(endpoint))).content == b"2"


async def pieces(*parts: bytes, then: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if then is not None:
        await then.wait()


async def test_a_streamed_body_in_chunks_or_of_a_given_length(transport: Http1Transport) -> None:
    server = Server()
    async with raw_server(server) as endpoint:
        body = StreamedBody(pieces(b"one", b"", b"two"))
        await transport.send(request_to(endpoint, "POST", body))
        request = request_to(endpoint, "POST", StreamedBody(pieces(b"one", b"two")))
        sized = dataclasses.replace(request, headers=[("Content-Length", "6")])
        await transport.send(sized)
    chunked, measured = server.received
    assert (chunked.header("transfer-encoding"), chunked.body) == ("chunked", b"onetwo")
    assert measured.header("transfer-encoding") is None
    assert (measured.header("content-length"), measured.body) == ("6", b"onetwo")
    assert server.connections == 1


@pytest.mark.parametrize("length", ["5", "7", "-6", "six"])
async def test_a_streamed_body_of_another_length_than_announced(
    transport: Http1Transport, length: str
) -> None:
    async with raw_server(Server()) as endpoint:
        request = request_to(endpoint, "POST", StreamedBody(pieces(b"one", b"two")))
        with pytest.raises(ConfigError, match="content-length"):
            await transport.send(
                dataclasses.replace(request, headers=[("content-length", length)], timeout=5.0)
            )


async def test_the_length_of_a_whole_body_is_ours_to_say(transport: Http1Transport) -> None:
    server = Server()
    framing = [("Content-Length", "1"), ("transfer-encoding", "chunked"), ("x-a", "1")]
    async with raw_server(server) as endpoint:
        request = dataclasses.replace(request_to(endpoint, "POST", b"body"), headers=framing)
        await transport.send(request)
    assert server.received[0].body == b"body"
    assert server.received[0].header("transfer-encoding") is None
    assert server.received[0].header("x-a") == "1"


async def test_an_answer_before_all_of_the_body_is_sent(transport: Http1Transport) -> None:
    async def too_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_answer(413, b"no"))
        await writer.drain()
        await reader.read()

    never = asyncio.Event()
    async with raw_server(too_much) as endpoint, asyncio.timeout(20):
        for send in (whole, streamed):
            body = StreamedBody(pieces(b"x" * 1000, then=never))
            answer = await send(transport, request_to(endpoint, "POST", body, timeout=600))
            assert (answer.status_code, answer.content) == (413, b"no")


async def test_both_ways_at_once(transport: Http1Transport) -> None:
    """A streamed answer may begin while the body is still being sent, and echo it."""
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def questions() -> AsyncIterator[bytes]:
        while question := await asked.get():
            yield question

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size + 2)
            writer.write(b"%x\r\n%b" % (size, piece))
        writer.write(b"0\r\n\r\n")

    async with raw_server(echo) as endpoint, asyncio.timeout(20):
        stream = await transport.stream(request_to(endpoint, "POST", StreamedBody(questions())))
        for word in (b"one", b"two"):
            asked.put_nowait(word)
            assert await stream.read() == word
        asked.put_nowait(b"")
        assert await stream.read() == b""
        await stream.aclose()


async def test_a_stream_that_is_not_read_stays_with_the_sender(transport: Http1Transport) -> None:
    sent = 0
    stalled = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stalled.set()
                await writer.drain()
            sent += 65536

    async with raw_server(endless) as endpoint, asyncio.timeout(60):
        stream = await transport.stream(request_to(endpoint))
        await stalled.wait()
        before = sent
        got = 0
        while got <= before:  # what the sockets held, and then more
            got += len(await stream.read())
        await stream.aclose()
    assert sent > before


COMPRESSED = {
    "gzip": gzip.compress(b"hello" * 100),
    "x-gzip": gzip.compress(b"hello" * 50) + gzip.compress(b"hello" * 50),
    "deflate": zlib.compress(b"hello" * 100),
    "Deflate": zlib.compress(b"hello" * 100, wbits=-15),
}


@ways
@pytest.mark.parametrize("coding", COMPRESSED)
async def test_compressed_answers(transport: Http1Transport, send: object, coding: str) -> None:
    packed = COMPRESSED[coding]
    async with raw_server(Server(http_answer(200, packed, ("content-encoding", coding)))) as place:
        got = await (whole if send is whole else streamed)(transport, request_to(place))
    assert got.content == b"hello" * 100
    assert not {"content-encoding", "content-length"} & got.headers.keys()


@ways
async def test_a_compressed_body_that_is_cut_short(transport: Http1Transport, send: object) -> None:
    packed = COMPRESSED["gzip"][:-4]
    answer = http_answer(200, packed, ("content-encoding", "gzip"))
    async with raw_server(Server(answer)) as place:
        with pytest.raises(ConnectionLost, match="cut short"):
            await (whole if send is whole else streamed)(transport, request_to(place))


async def test_an_unknown_coding_is_the_callers_to_undo(transport: Http1Transport) -> None:
    got = await answered(transport, http_answer(200, b"?", ("content-encoding", "br")))
    assert (got.content, got.headers["content-encoding"]) == (b"?", "br")


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(200, b"x" * 101),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        http_answer(200, gzip.compress(b"x" * 1_000_000), ("content-encoding", "gzip")),
    ],
)
async def test_an_answer_that_is_too_large(transport: Http1Transport, answer: bytes) -> None:
    async with raw_server(Server(answer)) as endpoint:
        request = dataclasses.replace(request_to(endpoint), most=100)
        message = r"^sent more than the 100 bytes that an answer may have$"
        with pytest.raises(AnswerTooLarge, match=message):
            await transport.send(request)


async def test_an_answer_just_small_enough(transport: Http1Transport) -> None:
    for packed, coding in ((b"x" * 100, "identity"), (gzip.compress(b"x" * 100), "gzip")):
        async with raw_server(
            Server(http_answer(200, packed, ("content-encoding", coding)))
        ) as endpoint:
            request = dataclasses.replace(request_to(endpoint), most=100)
            assert (await transport.send(request)).content == b"x" * 100


@pytest.mark.parametrize("address", ["127.0.0.1:port", "127.0.0.1", "a..b:80", "127.0.0.1:70000"])
async def test_addresses_that_are_none(transport: Http1Transport, address: str) -> None:
    with pytest.raises(ConnectError, match=r"not valid|can't be reached"):
        await transport.send(Request("GET", f"http://{address}/", [], None, 5.0))


async def test_names_of_several_addresses(transport: Http1Transport) -> None:
    async with raw_server(Server()) as endpoint:
        named = Endpoint("localhost", endpoint.port)
        assert (await transport.send(request_to(named))).content == b"ok"
    with pytest.raises(ConnectError, match=r"^refused the connection$"):
        await transport.send(request_to(named))


def upgrade_of(line: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(line)
        await reader.read()

    return handler


async def test_a_protocol_nobody_asked_for(transport: Http1Transport) -> None:
    line = b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    async with raw_server(upgrade_of(line)) as endpoint:
        with pytest.raises(ConnectionLost, match="sent no valid answer"):
            await transport.send(request_to(endpoint))


@ways
async def test_trailers_are_no_headers(transport: Http1Transport, send: object) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\n\r\n"
    answer = head + b"2\r\nok\r\n0\r\ncontent-encoding: gzip\r\nx-a: 2\r\n\r\n"
    async with raw_server(Server(answer)) as endpoint:
        got = await (whole if send is whole else streamed)(transport, request_to(endpoint))
    assert (got.content, dict(got.headers)) == (b"ok", {"transfer-encoding": "chunked", "x-a": "1"})


async def test_headers_of_a_second_answer_are_not_of_the_first(transport: Http1Transport) -> None:
    got = await answered(transport, http_answer(200, b"ok") + http_answer(200, b"no", ("x-a", "2")))
    assert (got.content, dict(got.headers)) == (b"ok", {"content-length": "2"})


async def test_a_body_in_answer_to_head_ends_the_connection(transport: Http1Transport) -> None:
    server = Server(http_answer(200, b"unexpected"))
    async with raw_server(server) as endpoint:
        for _ in range(2):
            got = await transport.send(request_to(endpoint, "HEAD"))
            assert (got.status_code, got.content) == (200, b"")
    assert server.connections == 2


@ways
@pytest.mark.parametrize("kind", ["one", "many", "interim"])
async def test_a_head_without_end(transport: Http1Transport, send: object, kind: str) -> None:
    start = b"HTTP/1.1 200 OK\r\n"
    part = {
        "one": b"x" * 1000,
        "many": b"x-a: 1\r\n" * 100,
        "interim": b"\r\nHTTP/1.1 103 Early Hints\r\nx-a: 1\r\n",
    }[kind]
    hung_up = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        first = {"one": start + b"x-a: ", "many": start}.get(kind, b"HTTP/1.1 103 Early Hints\r\n")
        writer.write(first)
        try:
            while True:
                writer.write(part)
                await writer.drain()
        except ConnectionError:
            hung_up.set()

    async with raw_server(endless) as endpoint:
        with pytest.raises(ConnectionLost, match="headers of more than"):
            await (whole if send is whole else streamed)(transport, request_to(endpoint))
        async with asyncio.timeout(10):
            await hung_up.wait()


async def test_a_large_stream_that_was_left_unread_harms_no_later_call(
    transport: Http1Transport,
) -> None:
    # More than one read of the socket, so that it is complete and above the bound at once.
    server = Server(http_answer(200, b"x" * 400_000))
    async with raw_server(server) as endpoint:
        for _ in range(10):
            stream = await transport.stream(request_to(endpoint))
            await asyncio.sleep(0.02)  # it arrives meanwhile
            await stream.aclose()
            got = await transport.send(request_to(endpoint))
            assert len(got.content) == 400_000


@pytest.mark.parametrize("end", ["left", "broken"])
async def test_a_stream_that_we_break_off_never_looks_complete(
    transport: Http1Transport, end: str
) -> None:
    async def lasting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")  # the end of the connection ends it
        await reader.read()

    broken = asyncio.Event()

    async def question() -> AsyncIterator[bytes]:
        yield b"a"
        await broken.wait()
        raise OSError("the disk is gone")

    async with raw_server(lasting) as endpoint:
        request = request_to(endpoint, "POST")
        if end == "broken":
            request = dataclasses.replace(request, content=question())
        stream = await transport.stream(request)
        assert await stream.read() == b"half"
        if end == "broken":
            broken.set()
        else:
            stream.interrupt()
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionLost):
            await stream.read()
        await stream.aclose()
