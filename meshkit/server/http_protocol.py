"""What uvicorn's parser protocol lacks: a bound on the head of a request, and its arrival."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshkit.server.backlog import Backlog
from meshkit.server.shedding.http import ARRIVED

MAX_HEAD = 65536  # bytes of request line and headers, as uvicorn has it with its other parser


# Of Linux's struct tcp_info: milliseconds since data last came.
TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
last_data = struct.Struct("52xI")


class BoundedProtocol(HttpToolsProtocol):
    """HttpToolsProtocol that hangs up on an endless head and notes when a request came.

    httptools collects headers for as long as they come.
    """

    # Bytes of an unfinished head after the read in which it began, and 1; 0 when it began in this
    # read; -1 when none is under way.
    _head = -1
    _first = True

    def __init__(self, *, backlog: Backlog, **state: Any) -> None:
        super().__init__(**state)
        self._backlog = backlog

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._backlog.accept(self._another)

    def _another(self) -> BoundedProtocol:
        return BoundedProtocol(
            backlog=self._backlog,
            config=self.config,
            server_state=self.server_state,
            app_state=self.app_state,
        )

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        super().data_received(data)
        if self._head > 0:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse()
        elif self._head == 0:
            self._head = 1

    def on_message_begin(self) -> None:
        """See httptools."""
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._head = -1
        super().on_headers_complete()
        waited = 0.0
        if self._first:
            self._first = False
            waited = _in_kernel(self.transport)
        self.scope[ARRIVED] = time.perf_counter() - waited  # type: ignore[literal-required]

    def _refuse(self) -> None:
        self.logger.warning("a request's head is larger than %d bytes; refused with 431", MAX_HEAD)
        body = b'{"detail":"the headers are larger than %d bytes"}' % MAX_HEAD
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()


def _in_kernel(transport: asyncio.Transport) -> float:
    """Return how many seconds ago the newest data of a connection came.

    uvloop accepts one connection in each turn of the loop, so that with a busy loop the first
    request of a connection may have waited long before anybody here sees it.
    """
    sock: Any = transport.get_extra_info("socket")
    if TCP_INFO is None or sock is None:
        return 0.0
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, last_data.size)
        if len(info) == last_data.size:
            (milliseconds,) = last_data.unpack(info)
            return float(milliseconds) / 1000
    return 0.0
