"""How answers are read while they arrive."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from meshkit.discovery.balancing import Outcome
from meshkit.errors import CallTimeout, ConfigError, ConnectionLost
from tests.client.http_servers import raw_server, read_request, users


class Pieces:
    """A server that sends its answer's body piece by piece, and then ends in a given way."""

    def __init__(self, *pieces: bytes, end: str = "orderly", status: int = 200) -> None:
        self.pieces, self.end, self.status = pieces, end, status
        self.proceed = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(f"HTTP/1.1 {self.status} X\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        for piece in self.pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0.02)
        if self.end == "orderly":
            writer.write(b"0\r\n\r\n")
        elif self.end == "hang":
            with contextlib.suppress(OSError):
                await reader.read()
            self.left.set()


async def test_a_stream_by_pieces() -> None:
    server = Pieces(b"one", b"two")
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        async with ours.client.stream("GET", "/x") as answer:
            assert (answer.status_code, answer.instance.id, answer.attempts) == (200, "users-a", 1)
            assert answer.raise_for_status() is answer
            assert repr(answer) == "<StreamResponse [200 OK]>"
            with pytest.raises(ConfigError, match=r"await response\.aread\(\)"):
                answer.json()
            assert b"".join([piece async for piece in answer.aiter_bytes()]) == b"onetwo"
            assert ours.outcomes == []  # the call lasts as long as its stream
        assert ours.outcomes == [("users-a", Outcome.OK)]


async def test_a_stream_read_as_a_whole() -> None:
    async with raw_server(Pieces(b'{"a":', b" 1}")) as endpoint, users(endpoint) as ours:
        async with ours.client.stream("POST", "/x", json={}) as answer:
            assert await answer.aread() == b'{"a": 1}'
            assert await answer.aread() == b'{"a": 1}'
            assert [piece async for piece in answer.aiter_bytes()] == [b'{"a": 1}']
        assert (answer.json(), answer.text) == ({"a": 1}, '{"a": 1}')  # also after the block


async def test_text_of_a_stream_cuts_no_character_in_two() -> None:
    euro = "\u20ac".encode()
    async with (
        raw_server(Pieces(b"a" + euro[:1], euro[1:2], euro[2:] + b"b", euro[:2])) as place,
        users(place) as ours,
        ours.client.stream("GET", "/x") as answer,
    ):
        pieces = [piece async for piece in answer.aiter_text()]
    assert pieces == ["a", "\u20acb", "\ufffd"]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"one\r\ntwo\rthree"], ["one", "two", "three"]),
        ([b"one\r", b"\ntwo"], ["one", "two"]),
        ([b"o", b"n", b"e\nt", b"wo"], ["one", "two"]),
        ([b"\n\n", b"x\r"], ["", "", "x"]),
        ([b"a\x0bb\xe2\x80\xa8c\n"], ["a\x0bb\u2028c"]),  # legal within a line of JSON
        ([], []),
    ],
)
async def test_lines_of_a_stream(pieces: list[bytes], lines: list[str]) -> None:
    async with (
        raw_server(Pieces(*pieces)) as endpoint,
        users(endpoint) as ours,
        ours.client.stream("GET", "/x") as answer,
    ):
        assert [line async for line in answer.aiter_lines()] == lines


async def test_a_line_arrives_before_the_next_one_is_there() -> None:
    async with (
        raw_server(Pieces(b"data: 1\n", end="hang")) as endpoint,
        users(endpoint) as ours,
        ours.client.stream("GET", "/events") as answer,
    ):
        async with asyncio.timeout(20):
            assert await anext(aiter(answer.aiter_lines())) == "data: 1"


async def test_a_stream_that_breaks_off() -> None:
    async with raw_server(Pieces(b"one", end="break")) as endpoint, users(endpoint) as ours:
        with pytest.raises(ConnectionLost, match=r"^users: GET /x: users-a sent no valid|broke"):
            async with ours.client.stream("GET", "/x?token=hush") as answer:
                await answer.aread()
        assert ours.outcomes == [("users-a", Outcome.FAILED)]
        assert ours.client.stats.failed == 1


async def test_a_stream_that_stalls() -> None:
    async with raw_server(Pieces(b"one", end="hang")) as endpoint, users(endpoint) as ours:
        with pytest.raises(CallTimeout, match=r"^users: GET /x: users-a did not answer in time"):
            async with ours.client.stream("GET", "/x", timeout=2.0) as answer:
                await answer.aread()
        assert ours.outcomes == [("users-a", Outcome.FAILED)]


async def test_what_is_not_read_is_let_go_of() -> None:
    server = Pieces(b"one", end="hang")
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        async with ours.client.stream("GET", "/x"):
            pass
        async with asyncio.timeout(20):
            await server.left.wait()
        assert ours.outcomes == [("users-a", Outcome.OK)]


async def test_the_callers_own_error_says_nothing_of_the_instance() -> None:
    async with raw_server(Pieces(b"one", end="hang")) as endpoint, users(endpoint) as ours:
        with pytest.raises(KeyError):
            async with ours.client.stream("GET", "/x"):
                raise KeyError("mine")
        assert ours.outcomes == [("users-a", Outcome.OK)]


async def test_a_cancelled_stream() -> None:
    server = Pieces(b"one", end="hang")
    async with raw_server(server) as endpoint, users(endpoint) as ours:
        begun = asyncio.Event()

        async def read() -> None:
            async with ours.client.stream("GET", "/x") as answer:
                begun.set()
                await answer.aread()

        task = asyncio.create_task(read())
        async with asyncio.timeout(20):
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await server.left.wait()
        assert ours.outcomes == [("users-a", Outcome.CANCELLED)]


async def test_an_error_status_of_a_stream() -> None:
    async with raw_server(Pieces(b"why", status=500)) as endpoint, users(endpoint) as ours:
        async with ours.client.stream("GET", "/x") as answer:
            assert answer.is_server_error
            assert await answer.aread() == b"why"
        assert ours.outcomes == [("users-a", Outcome.FAILED)]
