"""HTTP/1.1 over asyncio's streams: as much of it as the API of one server needs.

For Consul's agent, Docker's engine and the like, over TCP, TLS or a Unix socket. The client that
calls go through is not used here: it chooses among instances. Parsing is httptools'.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self

import httptools

from meshkit.model import Endpoint

CONNECT_LIMIT = 3.0
IDLE_CONNECTIONS = 16
READ_SIZE = 65536

#: host and port, or a Unix socket
Address = Endpoint | Path


class Closed(ConnectionError):
    """The peer closed the connection before its answer was complete."""


class Refused(Closed):
    """The peer closed a new connection instead of answering the first request on it."""


class NotConnected(OSError):
    """No connection came about in time."""


class Response:
    """One answer, filled by the parser: status, headers by their lower-case names, and body."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.headed = False
        self.complete = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether nothing but the end of the connection says where the body ends."""
        return self.headed and not {"content-length", "transfer-encoding"} & self.headers.keys()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header from the parser."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Hear from the parser that the body is next."""
        self.headed = True

    def on_body(self, data: bytes) -> None:
        """Take a part of the body from the parser."""
        self.body += data

    def on_message_complete(self) -> None:
        """Hear from the parser that this was all."""
        self.complete = True


class Incoming:
    """An answer that is being read."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.response = Response()
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self.response)

    async def advance(self) -> None:
        """Take in what comes next, or the end. Raises as :meth:`Connection.exchange`."""
        response, parser = self.response, self._parser
        try:
            data = await self._reader.read(READ_SIZE)
        except ConnectionResetError:
            # A server that refuses a request unread, as one of TLS does with plain HTTP,
            # answers and resets the connection.
            if not response.ends_with_connection or parser.get_status_code() < 400:
                raise
            data = b""
        if data:
            parser.feed_data(data)
        elif response.ends_with_connection:
            response.complete = True
        else:
            raise Closed("connection closed before the answer was complete")
        response.status = parser.get_status_code()


class Stream:
    """One answer whose body is iterated as it comes, once, in parts of any size.

    Iterating raises as :meth:`Connection.exchange` when the connection ends before the body.
    Waiting for a part may be cancelled and begun again.
    """

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    @property
    def status(self) -> int:
        """The answer's status."""
        return self._incoming.response.status

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers by their lower-case names."""
        return self._incoming.response.headers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        response = self._incoming.response
        while not response.body:
            if response.complete:
                raise StopAsyncIteration
            await self._incoming.advance()
        part = bytes(response.body)
        response.body.clear()
        return part


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._keep_alive = True

    @classmethod
    async def connect(cls, address: Address, context: ssl.SSLContext | None) -> Self:
        """Connect. Raises OSError, which ssl's errors and :class:`NotConnected` are too."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                if isinstance(address, Path):
                    streams = await asyncio.open_unix_connection(str(address))
                else:
                    streams = await asyncio.open_connection(address.host, address.port, ssl=context)
        except TimeoutError:
            raise NotConnected(f"no connection within {CONNECT_LIMIT:.0f} s") from None
        return cls(*streams)

    @property
    def open(self) -> bool:
        """Whether neither side has closed it, as far as we know."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent, as far as we know."""
        return self._keep_alive and self.open

    async def exchange(self, request: bytes) -> Response:
        """Send a request and read its answer.

        Raises:
            OSError: the connection broke; :class:`Closed` when it was closed.
            httptools.HttpParserError: the answer is not HTTP.
        """
        incoming = await self._ask(request)
        response = incoming.response
        while not response.complete:
            await incoming.advance()
        # The parser itself knows only until the message is complete.
        self._keep_alive = response.headers.get("connection", "").lower() != "close"
        return response

    async def stream(self, request: bytes) -> Stream:
        """Send a request and read the head of its answer. Raises as :meth:`exchange`."""
        self._keep_alive = False
        incoming = await self._ask(request)
        while not incoming.response.headed:
            await incoming.advance()
        return Stream(incoming)

    async def _ask(self, request: bytes) -> Incoming:
        self._writer.write(request)
        await self._writer.drain()
        return Incoming(self._reader)

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._writer.transport.abort()


class Pool:
    """Connections to one server, kept for reuse between requests.

    Args:
        address: of the server.
        context: returns what TLS is spoken with on the next connection; None for no TLS.
    """

    def __init__(
        self, address: Address, context: Callable[[], ssl.SSLContext] | None = None
    ) -> None:
        self._address = address
        self._context = context
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self.closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection that the peer keeps open."""
        return any(each.open for each in (*self._idle, *self._busy))

    async def send(self, request: bytes, *, repeat: bool) -> Response:
        """Send a request over a connection that was kept, or a new one.

        Args:
            request: head and body.
            repeat: send it again when a kept connection breaks: the server may just be closing
                what was idle, which says nothing about the server.

        Raises as :meth:`Connection.connect` and :meth:`Connection.exchange`. Cancelling closes the
        connection.
        """
        while self._idle:
            kept = self._idle.pop()
            if not kept.reusable:
                kept.close()
                continue
            try:
                return await self._exchange(kept, request)
            except ConnectionError:
                if not repeat or self.closed:
                    raise
        made = await self._connect()
        try:
            return await self._exchange(made, request)
        except ConnectionError as error:
            raise Refused(str(error)) from None

    @contextlib.asynccontextmanager
    async def stream(self, request: bytes) -> AsyncIterator[Stream]:
        """Send a request over a connection of its own, which is closed with the block.

        For answers that go on for long: how long the head may take, and how long each part of
        the body, is the caller's to bound. Raises as :meth:`send`.
        """
        connection = await self._connect()
        self._busy.add(connection)
        try:
            try:
                stream = await connection.stream(request)
            except ConnectionError as error:
                raise Refused(str(error)) from None
            yield stream
        finally:
            self._busy.discard(connection)
            connection.close()

    async def aclose(self) -> None:
        """Close all connections; requests under way fail. Closing twice is safe."""
        self.closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    async def _connect(self) -> Connection:
        made = await Connection.connect(self._address, self._context() if self._context else None)
        if self.closed:
            made.close()
            raise Closed("the pool was closed meanwhile")
        return made

    async def _exchange(self, connection: Connection, request: bytes) -> Response:
        self._busy.add(connection)
        reuse = False
        try:
            response = await connection.exchange(request)
            reuse = connection.reusable and len(self._idle) < IDLE_CONNECTIONS and not self.closed
            return response
        finally:
            self._busy.discard(connection)
            if reuse:
                self._idle.append(connection)
            else:
                connection.close()
