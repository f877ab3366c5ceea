"""Answers are written as uvicorn writes them, to the byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from meshkit.server.backlog import Backlog
from meshkit.server.bind import bind
from meshkit.server.headers import CLOSE, DefaultHeaders
from meshkit.server.http_protocol import HttpProtocol
from tests.support.connection import Written, converse

KNOWN = (b"content-length", b"5")
JSON = (b"content-type", b"application/json")
GET = b"GET /users/7?full=%20 HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
OLD = GET.replace(b"HTTP/1.1", b"HTTP/1.0")
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
REQUESTS = {
    "get": [GET],
    "head": [HEAD],
    "http-1.0": [OLD],
    "last": [LAST],
    "in-pieces": [GET[:20], GET[20:]],
    "escaped": [GET.replace(b"users", b"%C3%BCsers")],
    "pipeline": [GET + HEAD + GET],
    "body": [POST, b"abc"],
    "no-request": [b"\x00\r\n\r\n"],
}
ANSWERS: dict[str, tuple[int, list[tuple[bytes, bytes]], list[bytes]]] = {
    "whole": (200, [KNOWN, JSON], [b"12345"]),
    "in-parts": (200, [KNOWN], [b"123", b"45"]),
    "chunked": (200, [JSON], [b"123", b"", b"45"]),
    "told-chunked": (200, [(b"Transfer-Encoding", b"Chunked")], [b"12345"]),
    "empty": (204, [], [b""]),
    "unchanged": (304, [(b"etag", b"1")], [b""]),
    "zero": (404, [(b"Content-Length", b"0")], [b""]),
    "closing": (200, [KNOWN, (b"Connection", b"keep-alive, Close")], [b"12345"]),
    "too-short": (200, [KNOWN], [b"123"]),
    "too-long": (200, [KNOWN], [b"123456"]),
    "no-length": (200, [(b"content-length", b"five")], [b"12345"]),
    "no-name": (200, [KNOWN, (b"a b", b"c")], [b"12345"]),
    "split": (200, [KNOWN, (b"x-user", b"a\r\nset-cookie: b")], [b"12345"]),
    "tab": (200, [KNOWN, (b"x-user", b"a\tb\xff")], [b"12345"]),
    "nothing": (0, [], []),
    "unfinished": (200, [KNOWN], []),
}


def application(status: int, headers: list[tuple[bytes, bytes]], parts: list[bytes]) -> Any:
    """Return one that answers so, and tells of the request in a header."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        seen = f"{scope['path']} {scope['raw_path']} {scope['query_string']} {message}"
        pairs = [*headers, (b"x-seen", ascii(seen).encode())]
        if status:
            await send({"type": "http.response.start", "status": status, "headers": pairs})
        for number, part in enumerate(parts, 1):
            more = number < len(parts)
            await send({"type": "http.response.body", "body": part, "more_body": more})

    return app


@contextlib.contextmanager
def protocols(app: Any, *defaults: tuple[bytes, bytes]) -> Iterator[tuple[Any, Any]]:
    """Give ours and uvicorn's, with the same headers on all answers."""
    headers = DefaultHeaders()
    headers.add(*defaults)
    made = []
    with bind("127.0.0.1", 0) as sock:
        for kind, more in ((HttpProtocol, {"backlog": Backlog(sock)}), (HttpToolsProtocol, {})):
            config = uvicorn.Config(app, interface="asgi3", ws="none", log_config=None)
            config.load()
            state = ServerState()
            state.default_headers = headers
            make: Any = kind
            made.append(make(config=config, server_state=state, app_state={}, **more))
        yield made[0], made[1]


async def both(app: Any, *pieces: bytes, defaults: tuple[tuple[bytes, bytes], ...] = ()) -> Any:
    with protocols(app, *defaults) as (ours, theirs):
        return await converse(ours, *pieces), await converse(theirs, *pieces)


def told(connection: Written) -> tuple[bytes, bool]:
    return connection.answer, connection.closed


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_every_answer_is_the_same_as_uvicorns(request_: str, answer: str) -> None:
    ours, theirs = await both(application(*ANSWERS[answer]), *REQUESTS[request_])
    assert told(ours) == told(theirs)
    assert ours.answer or ours.closed


@pytest.mark.parametrize("request_", [GET, LAST])
async def test_a_server_that_leaves_closes_the_connection(request_: bytes) -> None:
    app = application(*ANSWERS["whole"])
    ours, theirs = await both(app, request_, defaults=((b"x-draining", b"users-1"), CLOSE))
    assert told(ours) == told(theirs)
    assert ours.closed


async def test_an_answer_waits_while_the_caller_does_not_read() -> None:
    with protocols(application(*ANSWERS["whole"])) as (ours, _):
        talk = asyncio.create_task(converse(ours, GET))
        await asyncio.sleep(0)
        ours.pause_writing()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ours.transport.answer == b""
        ours.resume_writing()
        assert (await talk).answer.endswith(b"12345")


async def test_nothing_is_written_for_a_caller_that_has_gone() -> None:
    with protocols(application(*ANSWERS["whole"])) as (ours, _):
        connection = Written()
        ours.connection_made(connection)
        ours.data_received(GET)
        ours.connection_lost(None)
        await asyncio.gather(*ours.tasks)
        assert connection.answer == b""
