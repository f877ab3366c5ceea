"""HTTP/1.1 over asyncio's streams: as much of it as the API of one server needs.

For Consul's agent, Docker's engine and the like, over TCP, TLS or a Unix socket. The client that
calls go through is not used here: it chooses among instances. Parsing is httptools'.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
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
        response = Response()
        parser = httptools.HttpResponseParser(response)
        self._writer.write(request)
        await self._writer.drain()
        while not response.complete:
            try:
                data = await self._reader.read(READ_SIZE)
            except ConnectionResetError:
                # A server that refuses a request unread, as one of TLS does with plain HTTP,
                # answers and resets the connection.
                if not response.ends_with_connection or parser.get_status_code() < 400:
                    raise
                break
            if data:
                parser.feed_data(data)
            elif response.ends_with_connection:
                break
            else:
                raise Closed("connection closed before the answer was complete")
        response.status = parser.get_status_code()
        # The parser itself knows only until the message is complete.
        self._keep_alive = response.headers.get("connection", "").lower() != "close"
        return response

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
        context = self._context() if self._context else None
        made = await Connection.connect(self._address, context)
        if self.closed:
            made.close()
            raise Closed("the pool was closed meanwhile")
        try:
            return await self._exchange(made, request)
        except ConnectionError as error:
            raise Refused(str(error)) from None

    async def aclose(self) -> None:
        """Close all connections; requests under way fail. Closing twice is safe."""
        self.closed = True
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

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
