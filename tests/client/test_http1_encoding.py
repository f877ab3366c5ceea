"""What is compressed, cut anywhere and hostile."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, strategies as st

from meshkit.client.http1 import Http1Transport
from meshkit.client.http1.encoding import Decoder
from meshkit.client.http1.transport import MOST_DECODED
from meshkit.errors import ConnectionLost
from tests.client.http_servers import Server, http_answer, raw_server, request_to


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


CODINGS = {"gzip": gzip.compress, "deflate": zlib.compress, "raw": raw_deflate}


@given(
    st.sampled_from(sorted(CODINGS)),
    st.binary(max_size=300) | st.integers(0, 70_000).map(bytes),
    st.integers(1, 40),
    st.integers(0, 50),
)
def test_pieces_and_limits_change_nothing(coding: str, data: bytes, size: int, limit: int) -> None:
    decoder = Decoder(gzip=coding == "gzip")
    encoded = CODINGS[coding](data)
    found = b""
    for start in range(0, len(encoded), size):
        part = decoder.decode(encoded[start : start + size], limit)
        found += part
        while decoder.pending:
            part = decoder.decode(b"", limit)
            assert len(part) <= limit + 1
            found += part
    decoder.finish()
    assert found == data


@given(st.sampled_from(sorted(CODINGS)), st.binary(min_size=1, max_size=300), st.data())
def test_a_body_that_is_cut_anywhere(coding: str, body: bytes, data: st.DataObject) -> None:
    encoded = CODINGS[coding](body)
    cut = data.draw(st.integers(1, len(encoded) - 1))
    decoder = Decoder(gzip=coding == "gzip")
    decoder.decode(encoded[:cut])
    with pytest.raises(ConnectionLost, match="cut short"):
        decoder.finish()


def test_many_members() -> None:
    decoder = Decoder(gzip=True)
    assert decoder.decode(gzip.compress(b"a") * 2000 + gzip.compress(b"b")) == b"a" * 2000 + b"b"
    decoder.finish()


async def test_a_stream_is_never_decompressed_as_a_whole() -> None:
    size = 32 * 1024 * 1024
    bomb = gzip.compress(bytes(size))
    transport = Http1Transport()
    answer = http_answer(200, bomb, ("content-encoding", "gzip"))
    async with raw_server(Server(answer)) as endpoint:
        stream = await transport.stream(request_to(endpoint))
        found = 0
        while piece := await stream.read():
            assert len(piece) <= MOST_DECODED + 1
            found += len(piece)
        assert found == size
        await stream.aclose()
        await transport.aclose()
