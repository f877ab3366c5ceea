"""Calling the measured services with as little as possible: bare sockets, no HTTP library."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from typing import cast

from measure import BenchmarkError, now
from processes import Process

from meshkit import Endpoint

PATH = "/users/7"
NO_HEADERS: Mapping[str, str] = {}
POLL = 0.002
LIMIT = 30.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get(endpoint: Endpoint, path: str = PATH) -> tuple[int, bytes]:
    """Return status and body of one GET over a connection of its own. Raises OSError."""
    with socket.create_connection((endpoint.host, endpoint.port), 2.0) as connection:
        connection.sendall(_request(endpoint, path, "close"))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        raise ConnectionError(f"{endpoint} closed the connection without an answer")
    return int(head.split(b" ", 2)[1]), body


async def first_answer(process: Process, where: Callable[[], Endpoint], path: str = PATH) -> float:
    """Ask ``where()`` every 2 ms until it answers 200; return when that was (see ``now``)."""
    deadline = now() + LIMIT
    while now() < deadline:
        with contextlib.suppress(OSError):
            if get(where(), path)[0] == 200:
                return now()
        process.check()
        await asyncio.sleep(POLL)
    raise BenchmarkError(f"{where()}{path} did not answer 200 within {LIMIT:.0f} s")


async def load(
    endpoint: Endpoint,
    *,
    requests: int,
    connections: int,
    path: str = PATH,
    headers: Mapping[str, str] = NO_HEADERS,
) -> None:
    """Make so many GET requests, one after the other on each of the kept-alive connections."""
    loop = asyncio.get_running_loop()
    clients = [
        _Client(_request(endpoint, path, "keep-alive", headers), requests // connections)
        for _ in range(connections)
    ]
    try:
        for client in clients:
            await loop.create_connection(client.itself, endpoint.host, endpoint.port)
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*(client.done for client in clients))
    except TimeoutError:
        raise BenchmarkError(
            f"{endpoint} did not answer {requests} requests within {LIMIT:.0f} s"
        ) from None
    finally:
        for client in clients:
            client.done.cancel()


class _Client(asyncio.Protocol):
    """One keep-alive connection; the next request goes out when the answer before is complete."""

    def __init__(self, request: bytes, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._left = count
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def itself(self) -> _Client:
        """Be the protocol factory of this one connection."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an asyncio.Transport by class when the loop is uvloop's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._complete():
            return
        if not self._received.startswith(b"HTTP/1.1 200"):
            self._fail(f"answered {self._received[:40]!r}")
            return
        self._received = b""
        self._left -= 1
        assert self._transport is not None
        if self._left:
            self._transport.write(self._request)
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"connection lost: {exc}")

    def _complete(self) -> bool:
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return False
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return len(body) >= int(length)

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(BenchmarkError(f"the load generator failed: {reason}"))


def _request(
    endpoint: Endpoint, path: str, connection: str, headers: Mapping[str, str] = NO_HEADERS
) -> bytes:
    lines = {"Host": endpoint, "Connection": connection, **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {path} HTTP/1.1\r\n{head}\r\n".encode()
