"""One request and its answer over HTTP/1.1: uvicorn's, with the answer's head written in one go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from meshkit.server.alarm import Alarm
from meshkit.server.answer import Message
from meshkit.server.headers import DefaultHeaders, Header
from meshkit.server.http_call import REQUEST_ID, HttpCall

FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})
BODILESS = frozenset({204, 304})
EVERY = [bytes([code]) for code in range(256)]
# What uvicorn lets pass in a header: what is left without these bytes must not be sent.
IN_NAMES = b"".join(each for each in EVERY if not HEADER_RE.search(each))
IN_VALUES = b"".join(each for each in EVERY if not HEADER_VALUE_RE.search(each))


class Cycle(RequestResponseCycle):
    """What the server knows of a request, and what the application gets as its ``send``.

    uvicorn goes through the headers of every answer one by one, those that are always the same
    included, and a layer around its ``send`` costs a frame for each message. So the two messages
    that nearly every answer consists of are handled here; all else is left to uvicorn.

    Attributes:
        alarm: of its connection.
        came: when the request's head had been read, on ``time.perf_counter()``.
        call: told when the answer begins and ends; None for what the application is not asked.
    """

    default_headers: DefaultHeaders
    alarm: Alarm
    came = 0.0
    call: HttpCall | None = None

    async def run_asgi(self, app: Any) -> None:
        """Let the application answer; whatever it does, the call has ended afterwards."""
        try:
            await super().run_asgi(app)
        finally:
            if self.call is not None:
                self.call.close()

    async def send(self, message: Any) -> None:
        """See ASGI."""
        kind = message["type"]
        if kind == "http.response.start" and not self.response_started:
            if self.flow.write_paused and not self.disconnected:
                await self.flow.drain()
            self._begin(message)
        elif kind == "http.response.body" and not message.get("more_body"):
            if self.call is not None:
                self.call.end()
            if not self._finish(message.get("body", b"")):
                await super().send(message)
        else:
            await super().send(message)

    def _begin(self, message: Message) -> None:
        status: int = message["status"]
        if self.call is not None:
            self.call.begin(status)
        if not self.disconnected:
            self.response_started = True
            self.waiting_for_100_continue = False
            self.transport.write(self._head(status, message.get("headers", ())))

    def _finish(self, body: bytes) -> bool:
        """Write the last or only part of a body whose length was announced; False for others."""
        if (
            self.chunked_encoding is not False
            or len(body) != self.expected_content_length
            or self.response_complete
            or self.disconnected
            or self.flow.write_paused
            or self.scope["method"] == "HEAD"
        ):
            return False
        self.transport.write(body)
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True

    def _head(self, status: int, headers: Iterable[Header]) -> bytes:
        lines = [STATUS_LINE[status], self.default_headers.lines]
        closing = self.default_headers.closing
        names = values = b""
        named = False
        for sent, value in headers:
            name = sent.lower()
            if name in FRAMING:
                closing |= self._frame(name, value)
            elif name == REQUEST_ID:
                named = True
            names += name
            values += value
            lines += (name, b": ", value, b"\r\n")
        if self.call is not None and not named:
            request_id = self.call.context.request_id.encode()
            lines += (REQUEST_ID, b": ", request_id, b"\r\n")
        if names.translate(None, IN_NAMES):
            raise RuntimeError("Invalid HTTP header name.")
        if values.translate(None, IN_VALUES):
            raise RuntimeError("Invalid HTTP header value.")
        if closing:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and not (
            status in BODILESS or self.scope["method"] == "HEAD"
        ):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _frame(self, name: bytes, value: bytes) -> bool:
        """Note how the body is delimited; return whether the connection is to be closed."""
        if name == b"connection":
            return b"close" in [token.strip() for token in value.lower().split(b",")]
        if name == b"transfer-encoding":
            if value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
        elif self.chunked_encoding is None:
            self.expected_content_length = int(value)
            self.chunked_encoding = False
        return False
