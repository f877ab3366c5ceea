"""What uvicorn's parser protocol lacks: a bound on the head of a request, and its arrival."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshkit.server.backlog import Backlog
from meshkit.server.shedding.http import ARRIVED

MAX_HEAD = 65536  # bytes of request line and headers, as uvicorn has it with its other parser


class BoundedProtocol(HttpToolsProtocol):
    """HttpToolsProtocol that hangs up on an endless head and notes when a request came.

    httptools collects headers for as long as they come.
    """

    def __init__(self, *, backlog: Backlog, **state: Any) -> None:
        super().__init__(**state)
        self._backlog = backlog
        self._head = 0  # bytes of an unfinished head after the read in which it began
        self._head_of: object = None

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
        """See asyncio.Protocol. The handlers of what was read run later, in tasks."""
        super().data_received(data)
        scope: Any = self.scope
        if scope is None or ARRIVED in scope:
            return  # nothing has begun, or this was a part of a body
        if "path" in scope:
            scope[ARRIVED] = time.perf_counter()
        elif scope is self._head_of:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse()
        else:
            self._head, self._head_of = 0, scope

    def _refuse(self) -> None:
        self.logger.warning("a request's head is larger than %d bytes; refused with 431", MAX_HEAD)
        body = b'{"detail":"the headers are larger than %d bytes"}' % MAX_HEAD
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()
