"""What uvicorn's parser protocol lacks: a bound on the head of a request, and our own cycle."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from meshkit.server.alarm import Alarm
from meshkit.server.backlog import Backlog
from meshkit.server.http_call import CYCLE
from meshkit.server.http_cycle import Cycle

MAX_HEAD = 65536  # bytes of request line and headers, as uvicorn has it with its other parser


class HttpProtocol(HttpToolsProtocol):
    """HttpToolsProtocol that hangs up on an endless head and answers by a :class:`Cycle`.

    httptools collects headers for as long as they come.
    """

    def __init__(self, *, backlog: Backlog, **state: Any) -> None:
        super().__init__(**state)
        self._backlog = backlog
        self._alarm = Alarm()
        self._head = 0  # bytes of an unfinished head after the read in which it began
        self._head_of: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._backlog.accept(self._another)

    def _another(self) -> HttpProtocol:
        return HttpProtocol(
            backlog=self._backlog,
            config=self.config,
            server_state=self.server_state,
            app_state=self.app_state,
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._alarm.forget(self)
        self._alarm.stop()

    def overdue(self) -> None:
        """Close a connection that nobody has used for long."""
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._alarm.forget(self)
        super().data_received(data)
        scope: Any = self.scope
        if scope is None or "path" in scope:
            return  # nothing has begun, or the head is complete
        if scope is self._head_of:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self._refuse()
        else:
            self._head, self._head_of = 0, scope

    def on_headers_complete(self) -> None:
        """See httptools. As uvicorn has it, without what our server has no options for."""
        parser = self.parser
        scope: Any = self.scope
        scope["method"] = parser.get_method().decode("ascii")
        version = parser.get_http_version()
        if version != "1.1":
            scope["http_version"] = version
        if parser.should_upgrade() and self._should_upgrade():
            return
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        cycle = scope[CYCLE] = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.alarm = self._alarm
        cycle.came = time.perf_counter()
        before, self.cycle = self.cycle, cycle
        if before is None or before.response_complete:
            self._start(cycle)
        else:  # of requests in a pipeline the next one waits until this one is answered
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_response_complete(self) -> None:
        """Go on with the next request. As uvicorn has it, without a timer for each."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(self.pipeline.pop()[0])
        else:
            self._alarm.set(time.monotonic() + self.timeout_keep_alive, self)

    def _start(self, cycle: Any) -> None:
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _refuse(self) -> None:
        self.logger.warning("a request's head is larger than %d bytes; refused with 431", MAX_HEAD)
        body = b'{"detail":"the headers are larger than %d bytes"}' % MAX_HEAD
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        self.transport.close()
