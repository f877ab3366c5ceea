"""Answers of every framing, cut at any byte, over sockets; and those that could mean two things."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from meshkit.client.http1 import Http1Transport
from meshkit.errors import CallTimeout, ConnectionLost
from tests.client.http_servers import Server, raw_server, read_request, request_to, streamed, whole

BODY = b"one, two and three"
FRAMED = {
    "length": b"content-length: 18\r\n\r\n" + BODY,
    "chunks": b"transfer-encoding: chunked\r\n\r\n"
    b"5;a=b\r\none, \r\nd\r\ntwo and three\r\n0\r\nx-t: 1\r\n\r\n",
    "end": b"\r\n" + BODY,
}
AMBIGUOUS = [
    b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    b"content-length: +2\r\n\r\nab",
    b"content-length: -2\r\n\r\nab",
    b"content-length: 99999999999999999999999\r\n\r\nab",
    b"transfer-encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nab\r\n0\r\n\r\n",
    b"transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    b"x a: 1\r\ncontent-length: 0\r\n\r\n",
]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(FRAMED)),
    st.integers(0, 2),
    st.lists(st.integers(1, 150), max_size=8),
    st.sampled_from(["whole", "streamed"]),
)
def test_an_answer_cut_anywhere(kind: str, interim: int, cuts: list[int], way: str) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" * interim + b"HTTP/1.1 200 OK\r\n" + FRAMED[kind]
    edges = [0, *sorted({cut for cut in cuts if cut < len(answer)}), len(answer)]

    async def in_parts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for start, end in itertools.pairwise(edges):
                writer.write(answer[start:end])
                await writer.drain()
                await asyncio.sleep(0.001)
            if kind == "end":
                return

    async def calls() -> None:
        transport = Http1Transport()
        async with raw_server(in_parts) as endpoint:
            for _ in range(2):
                got = await (whole if way == "whole" else streamed)(transport, request_to(endpoint))
                assert (got.status_code, got.content) == (200, BODY)
                assert "x-t" not in got.headers
            await transport.aclose()

    asyncio.run(calls())


@pytest.mark.parametrize("rest", AMBIGUOUS)
@pytest.mark.parametrize("send", [whole, streamed])
async def test_framing_that_could_mean_two_things(rest: bytes, send: object) -> None:
    transport = Http1Transport()
    server = Server(b"HTTP/1.1 200 OK\r\n" + rest)
    async with raw_server(server) as endpoint:
        for _ in range(2):  # and the connection serves nobody else
            with pytest.raises(ConnectionLost, match="no valid answer"):
                await (whole if send is whole else streamed)(transport, request_to(endpoint))
        assert server.connections == 2
        await transport.aclose()


async def test_an_answer_by_drops_ends_with_its_time() -> None:
    async def drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    transport = Http1Transport()
    async with raw_server(drops) as endpoint:
        with pytest.raises(CallTimeout):
            await transport.send(request_to(endpoint, timeout=0.3))
        await transport.aclose()
