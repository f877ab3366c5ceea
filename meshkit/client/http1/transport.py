"""Our own transport, on asyncio and the parser that the server has (httptools).

What no library gave us: a call that is given up is withdrawn at once (its connection is closed,
so the server stops too), each instance has connections of its own, and they are closed when it
goes. What it leaves out, as instances need none of it: TLS, proxies, HTTP/2, cookies.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

from meshkit.client.http1.connection import Connection, too_large
from meshkit.client.http1.encoding import Decoder, decoding
from meshkit.client.http1.head import authority, encode_head
from meshkit.client.http1.pool import IDLE_TIMEOUT, Pool, closed
from meshkit.client.transport import HttpTransport, RawResponse, RawStream, Request
from meshkit.errors import ConfigError, ConnectError, ConnectionLost
from meshkit.model import Instance

T = TypeVar("T")
Sending = asyncio.Future[None]

CONNECTIONS = 256  # to one instance
MOST_DECODED = 256 * 1024  # bytes of a stream at once: compressed, they may be a thousandth of it


class Http1Transport(HttpTransport):
    """See the module.

    Args:
        connections: to one instance at once; further calls wait for one.

    Raises:
        ConfigError: ``connections`` is less than 1.
    """

    def __init__(self, *, connections: int = CONNECTIONS) -> None:
        if connections < 1:
            raise ConfigError(f"connections must be at least 1, not {connections}")
        self._limit = connections
        self._pools: dict[tuple[str, str], Pool] = {}  # by instance id and address
        self._retired: set[Pool] = set()  # those of instances that left, until their calls end
        self._listed: dict[str, set[tuple[str, str]]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: Request) -> RawResponse:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        pool = self._pool(request)
        left = request.timeout
        if (connection := pool.kept()) is None:
            connection, left = await _connect(pool, left)
        try:
            sending = _start(connection, request, streamed=False)
            if sending is None:
                body = await connection.until_complete(left)
            else:
                body = await _while_sending(connection, sending, connection.until_complete(left))
            headers, decoder = decoding(connection.pairs)
            if decoder is not None:
                body = _decoded(decoder, body, request.most)
            return RawResponse(connection.status, headers, f"HTTP/{connection.version}", body)
        finally:
            pool.give(connection)

    async def stream(self, request: Request) -> RawStream:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        pool = self._pool(request)
        connection, left = await _connect(pool, request.timeout)
        sending = None
        try:
            sending = _start(connection, request, streamed=True)
            if sending is None:
                await connection.until_head(left)
            else:
                await _while_sending(connection, sending, connection.until_head(left))
        except BaseException:
            pool.give(connection)
            raise
        return Http1Stream(connection, pool, sending, request.timeout)

    def keep(self, service: str, instances: Collection[Instance]) -> None:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        listed = {
            (each.id, str(each.endpoints["http"])) for each in instances if "http" in each.endpoints
        }
        for gone in self._listed.get(service, set()) - listed:
            if (pool := self._pools.pop(gone, None)) is not None:
                self._retired.add(pool)
                pool.retire()
        self._listed[service] = listed

    async def aclose(self) -> None:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        pools = [*self._pools.values(), *self._retired]
        self._pools.clear()
        self._retired.clear()
        for pool in pools:
            pool.close()
        if pools:
            await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    def _pool(self, request: Request) -> Pool:
        address = authority(request.url)
        pool = self._pools.get((request.peer, address))
        if pool is None:
            if self._closed:
                raise closed()
            host, _, port = address.rpartition(":")
            if not port.isdecimal():
                raise ConnectError("has an address that is not valid")
            pool = Pool(host.strip("[]"), int(port), self._limit)
            self._pools[request.peer, address] = pool
            if self._sweeping is None:
                self._sweep_later()
        return pool

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(IDLE_TIMEOUT / 3, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close what is idle for too long, and forget addresses without connections."""
        self._sweeping = None
        for pool in self._pools.values():
            pool.sweep(loop.time())
        self._pools = {key: pool for key, pool in self._pools.items() if not pool.empty}
        self._retired = {pool for pool in self._retired if not pool.empty}
        if self._pools or self._retired:
            self._sweep_later()


class Http1Stream(RawStream):
    """An answer of which the body is read piece by piece."""

    __slots__ = ("_connection", "_decoder", "_pool", "_sending")

    def __init__(
        self, connection: Connection, pool: Pool, sending: Sending | None, timeout: float
    ) -> None:
        headers, self._decoder = decoding(connection.pairs)
        super().__init__(connection.status, headers, f"HTTP/{connection.version}", timeout)
        self._connection: Connection | None = connection
        self._pool = pool
        self._sending = sending

    async def read(self) -> bytes:
        """See :class:`~meshkit.client.transport.RawStream`."""
        if self._connection is None:
            raise ConfigError("the stream is closed: read it within its `async with`")
        decoder = self._decoder
        if decoder is None:
            return await self._connection.next_piece(self.timeout)
        while decoder.pending:
            await asyncio.sleep(0)  # others have their turn between two parts of much
            if decoded := decoder.decode(b"", MOST_DECODED):
                return decoded
        while piece := await self._connection.next_piece(self.timeout):
            if decoded := decoder.decode(piece, MOST_DECODED):
                return decoded
        decoder.finish()
        return b""

    def interrupt(self) -> None:
        """See :class:`~meshkit.client.transport.RawStream`."""
        if self._connection is not None and not self._connection.complete:
            self._connection.fail(ConnectionLost("was left"))

    async def aclose(self) -> None:
        """See :class:`~meshkit.client.transport.RawStream`."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._sending is not None and not self._sending.done():
            connection.reusable = False
            self._sending.cancel()
        self._pool.give(connection)


async def _connect(pool: Pool, seconds: float) -> tuple[Connection, float]:
    """Return a connection, and the time that is left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    connection = await pool.take(seconds)
    return connection, max(deadline - loop.time(), 0.001)


def _start(connection: Connection, request: Request, *, streamed: bool) -> Sending | None:
    """Begin to send; returns the task that sends the body, if that comes by pieces."""
    head, length = encode_head(request)
    content = request.content
    connection.start(
        head + content if isinstance(content, bytes) else head,
        bodiless=request.method == "HEAD",
        streamed=streamed,
        most=request.most,
    )
    if content is None or isinstance(content, bytes):
        return None
    return asyncio.ensure_future(connection.send_pieces(content, length))


async def _while_sending(
    connection: Connection, sending: Sending, answering: Coroutine[Any, Any, T]
) -> T:
    """Return the answer, which may come (or begin) before all of the body is sent.

    Raises what the source of the body raises.
    """
    answer = asyncio.ensure_future(answering)
    both: set[asyncio.Future[Any]] = {sending, answer}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        found = await answer
    except BaseException:
        sending.cancel()
        answer.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        raise
    if not sending.done() and connection.complete:  # it will not be read any more
        connection.reusable = False
        sending.cancel()
    sending.add_done_callback(functools.partial(_sent, connection))
    return found


def _sent(connection: Connection, sending: Sending) -> None:
    """End a streamed answer whose question could not be sent to its end."""
    if not sending.cancelled() and sending.exception() is not None:
        connection.abort()


def _decoded(decoder: Decoder, body: bytes, most: int) -> bytes:
    decoded = decoder.decode(body, most)
    if most and len(decoded) > most:
        raise too_large(most)
    decoder.finish()
    return decoded
