"""HTTP to one server, on sockets, under both event loops that services run on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from meshkit.connections import Closed, Pool, Refused
from meshkit.model import Endpoint

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


class Server:
    """Answers each request with the next of ``answers``; an empty one closes the connection."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.connections = 0
        self.closed = asyncio.Event()  # by the client
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked.set()
                if not self.answers:
                    await reader.read()
                    self.closed.set()
                    break
                answer = self.answers.pop(0)
                for at in range(len(answer)):
                    writer.write(answer[at : at + 1])
                    await writer.drain()
                if not answer or b"close" in answer or b"HTTP/1.0" in answer:
                    break
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, Pool]]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    pool = Pool(Endpoint("127.0.0.1", listener.sockets[0].getsockname()[1]))
    yield server, pool
    await pool.aclose()
    listener.close()


async def test_one_connection_for_request_after_request(server: tuple[Server, Pool]) -> None:
    script, pool = server
    script.answers = [OK] * 5
    for _ in range(5):
        response = await pool.send(REQUEST, repeat=False)
        assert (response.status, bytes(response.body)) == (200, b"ok")
    assert script.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
    ],
)
async def test_all_ways_to_end_a_body(server: tuple[Server, Pool], answer: bytes) -> None:
    script, pool = server
    script.answers = [answer, answer]
    for _ in range(2):
        response = await pool.send(REQUEST, repeat=False)
        assert (response.status, bytes(response.body)) == (200, b"ok")


async def test_headers_by_lower_case_name(server: tuple[Server, Pool]) -> None:
    script, pool = server
    script.answers = [b"HTTP/1.1 204 No Content\r\nX-Consul-INDEX: 7\r\n\r\n"]
    response = await pool.send(REQUEST, repeat=False)
    assert (response.status, response.headers["x-consul-index"]) == (204, "7")


async def test_a_kept_connection_that_breaks_is_replaced(server: tuple[Server, Pool]) -> None:
    script, pool = server
    script.answers = [OK, b"", OK]
    await pool.send(REQUEST, repeat=False)
    assert (await pool.send(REQUEST, repeat=True)).status == 200
    assert script.connections == 2


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok"]
)
async def test_what_must_not_be_repeated_fails(server: tuple[Server, Pool], answer: bytes) -> None:
    script, pool = server
    script.answers = [OK, answer, OK]
    await pool.send(REQUEST, repeat=False)
    with pytest.raises((Closed, ConnectionResetError)):
        await pool.send(REQUEST, repeat=False)
    assert script.connections == 1


async def test_a_new_connection_that_breaks_is_not_tried_again(
    server: tuple[Server, Pool],
) -> None:
    script, pool = server
    script.answers = [b"", OK, b""]
    with pytest.raises(Refused):
        await pool.send(REQUEST, repeat=True)
    await pool.send(REQUEST, repeat=True)
    with pytest.raises((Closed, ConnectionResetError)) as caught:
        await pool.send(REQUEST, repeat=False)
    assert caught.type is not Refused  # what was accepted once can only be lost


async def test_the_server_sees_a_cancelled_request_end_at_once(
    server: tuple[Server, Pool],
) -> None:
    script, pool = server
    pending = asyncio.ensure_future(pool.send(REQUEST, repeat=True))
    async with asyncio.timeout(5):
        await script.asked.wait()
        pending.cancel()
        await script.closed.wait()
    assert pending.cancelled()


async def test_closing_ends_what_is_under_way(server: tuple[Server, Pool]) -> None:
    script, pool = server
    pending = asyncio.ensure_future(pool.send(REQUEST, repeat=True))
    async with asyncio.timeout(5):
        await script.asked.wait()
        await pool.aclose()
        await script.closed.wait()
        with pytest.raises(ConnectionError):
            await pending
    assert script.connections == 1


LONG = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Kind: long\r\n\r\n"


@pytest.fixture
async def writing() -> AsyncIterator[tuple[list[asyncio.StreamWriter], Pool, asyncio.Event]]:
    """The writers of answers to each request, for the test to use, and the client's leaving."""
    writers: list[asyncio.StreamWriter] = []
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writers.append(writer)
            writer.write(LONG)
            await reader.read()
        left.set()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Pool(Endpoint("127.0.0.1", listener.sockets[0].getsockname()[1]))
    async with asyncio.timeout(30):
        yield writers, pool, left
    await pool.aclose()
    listener.close()


Writing = tuple[list[asyncio.StreamWriter], Pool, asyncio.Event]


async def test_a_body_is_streamed_as_it_comes(writing: Writing) -> None:
    writers, pool, left = writing
    async with pool.stream(REQUEST) as stream:
        assert (stream.status, stream.headers["x-kind"]) == (200, "long")
        assert not left.is_set()
        for text in (b"one", b"two"):  # each is there before the next is written
            writers[0].write(b"3\r\n%s\r\n" % text)
            assert await anext(stream) == text
        writers[0].write(b"4\r\nlast\r\n0\r\n\r\n")
        assert [part async for part in stream] == [b"last"]
        assert [part async for part in stream] == []
    await left.wait()


async def test_leaving_a_stream_closes_its_connection(writing: Writing) -> None:
    writers, pool, left = writing
    async with pool.stream(REQUEST) as stream:
        writers[0].write(b"3\r\none\r\n")
        async for part in stream:
            assert part == b"one"
            break
    await left.wait()
    assert not pool.connected


async def test_waiting_for_a_part_can_be_cancelled_and_begun_again(writing: Writing) -> None:
    writers, pool, _left = writing
    async with pool.stream(REQUEST) as stream:
        pending = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        writers[0].write(b"3\r\none\r\n")
        assert await anext(stream) == b"one"


async def test_a_cancelled_stream_closes_its_connection(writing: Writing) -> None:
    writers, pool, left = writing

    async def follow() -> None:
        async with pool.stream(REQUEST) as stream:
            async for _ in stream:
                pass

    pending = asyncio.ensure_future(follow())
    while not writers:
        await asyncio.sleep(0.01)
    pending.cancel()
    await left.wait()
    assert pending.cancelled()


async def test_a_stream_that_breaks_off_says_so(writing: Writing) -> None:
    writers, pool, _left = writing
    async with pool.stream(REQUEST) as stream:
        writers[0].write(b"3\r\none\r\n5\r\ntw")
        assert b"".join([await anext(stream)]).startswith(b"one")
        writers[0].close()
        with pytest.raises(Closed):
            async for _ in stream:
                pass


async def test_closing_the_pool_ends_its_streams(writing: Writing) -> None:
    _writers, pool, _left = writing
    async with pool.stream(REQUEST) as stream:
        await pool.aclose()
        with pytest.raises(ConnectionError):
            await anext(stream)
    with pytest.raises(Closed):
        async with pool.stream(REQUEST):
            pass


async def test_streams_are_no_burden_to_requests(writing: Writing) -> None:
    writers, pool, _left = writing
    async with pool.stream(REQUEST), pool.stream(REQUEST):
        assert len(writers) == 2
        pending = asyncio.ensure_future(pool.send(REQUEST, repeat=False))
        while len(writers) < 3:
            await asyncio.sleep(0.01)
        writers[2].write(b"2\r\nok\r\n0\r\n\r\n")
        assert (await pending).body == b"ok"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
async def test_a_stream_ends_in_every_way(
    server: tuple[Server, Pool], answer: bytes, body: bytes
) -> None:
    script, pool = server
    script.answers = [answer]
    async with pool.stream(REQUEST) as stream:
        assert b"".join([part async for part in stream]) == body


async def test_a_stream_that_never_begins_is_refused(server: tuple[Server, Pool]) -> None:
    script, pool = server
    script.answers = [b""]
    with pytest.raises(Refused):
        async with pool.stream(REQUEST):
            pass
