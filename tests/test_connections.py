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
