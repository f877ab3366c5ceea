"""One connection to an instance, for one request at a time."""

from __future__ import annotations

import asyncio
import math
import select
from collections import deque
from collections.abc import AsyncIterable
from typing import cast

import httptools

from meshkit.errors import AnswerTooLarge, CallError, CallTimeout, ConfigError, ConnectionLost

# Of a stream that nobody reads: more than this stays with the sender.
MOST_BUFFERED = 256 * 1024
# Bytes of a head that is not complete, interim answers included.
MOST_HEAD = 256 * 1024

HANGUP = getattr(select, "POLLRDHUP", 0)  # Linux has it


class Connection(asyncio.Protocol):
    """Sends a request, and takes the answer from the parser, whose callbacks it has.

    Attributes:
        status: of the answer, 0 before its head is there.
        pairs: its headers, with names in lower case.
        version: as in ``"1.1"``.
        complete: the answer is there as a whole.
        reusable: another request may follow.
        since: when it was last used, on the loop's clock.
    """

    __slots__ = (
        "_bodiless",
        "_closed",
        "_error",
        "_head",
        "_lasting",
        "_loop",
        "_most",
        "_parser",
        "_paused",
        "_pieces",
        "_poll",
        "_size",
        "_streamed",
        "_transport",
        "_waiter",
        "_writable",
        "complete",
        "pairs",
        "reusable",
        "since",
        "status",
        "version",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._closed = False
        self._parser = httptools.HttpResponseParser(self)
        self.since = loop.time()
        self._begin(bodiless=False, streamed=False, most=0)
        self.complete = True

    def _begin(self, *, bodiless: bool, streamed: bool, most: int) -> None:
        self.status = 0
        self.version = ""
        self.pairs: list[tuple[str, str]] = []
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._head = 0
        self._error: CallError | None = None
        self._bodiless = bodiless
        self._streamed = streamed
        self._most = most
        self._lasting = False  # only the end of the connection ends the body
        self._paused = False
        self.complete = self.reusable = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | HANGUP)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self.complete:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.fail(ConnectionLost(f"sent no valid answer ({reason})"))
        if not self.status:  # the parser collects a head for as long as it comes
            self._head += len(data)
            if self._head > MOST_HEAD:
                self.fail(ConnectionLost(f"sent headers of more than {MOST_HEAD} bytes"))
        if self._streamed and self._size > MOST_BUFFERED:
            self._pause()

    def _pause(self) -> None:
        # Not when the answer is complete: the connection may serve another request, unread.
        if not (self._paused or self._closed or self.complete):
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._closed = True
        self.reusable = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.complete:
            return
        if error is None and self._lasting:
            self.complete = True
            self._wake()
            return
        reason = getattr(error, "strerror", None) or "connection closed before message completed"
        self.fail(ConnectionLost(f"broke the connection ({reason})"))

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Hear that an answer begins; a second one was not asked for."""
        if self.complete:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What comes later is a trailer, or of an answer that nobody asked for."""
        if not self.status:
            self.pairs.append((name.decode("latin-1").lower(), _text(value)))

    def on_headers_complete(self) -> None:
        """Hear that the body is next. An interim answer (1xx) has none, and is not the answer."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.pairs.clear()
            return
        self.status = status
        self.version = self._parser.get_http_version()
        framed = any(name in ("content-length", "transfer-encoding") for name, _ in self.pairs)
        self._lasting = not framed
        if self._bodiless:
            # The parser does not know what was asked for, and expects the body of a HEAD.
            self.reusable = self._parser.should_keep_alive()
            self._parser = httptools.HttpResponseParser(self)
            self.complete = True
            self._wake()
        elif self._streamed:
            self._wake()

    def on_body(self, data: bytes) -> None:
        """Take a part of the body."""
        if self.complete:  # of an answer to HEAD: what else of it comes can't be told apart
            self.abort()
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._streamed:
            self._wake()
        elif self._most and self._size > self._most:
            self.fail(too_large(self._most))

    def on_message_complete(self) -> None:
        """Hear that this was all."""
        if self.status and not self.complete:
            # An answer may come before all was sent; what is left would go before the next head.
            unsent = self._closed or self._writable is not None
            self.reusable = self._parser.should_keep_alive() and not unsent
            self.complete = True
            self._wake()

    # What the transport calls.

    @property
    def usable(self) -> bool:
        """Whether a request may be sent now: the peer has neither closed nor sent anything."""
        return self.reusable and not self._transport.is_closing() and not self._poll.poll(0)

    def start(self, data: bytes, *, bodiless: bool, streamed: bool, most: int = 0) -> None:
        """Send a head and as much of the body as is there.

        Args:
            data: of the request.
            bodiless: the answer has no body, whatever its head says (HEAD).
            streamed: the answer is read by pieces.
            most: bytes that its body may have when it is not; any number if 0.
        """
        self._begin(bodiless=bodiless, streamed=streamed, most=most)
        self._transport.write(data)

    async def send_pieces(self, pieces: AsyncIterable[bytes], length: int | None) -> None:
        """Send a body by pieces, in chunks when ``length`` is None.

        Raises ConfigError when it has another length than was announced; and whatever the
        source of the pieces raises.
        """
        left = length or 0
        async for piece in pieces:
            if not piece:
                continue
            left -= len(piece)
            if length is None:
                self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            elif left >= 0:
                self._transport.write(piece)
            else:
                break
            if self._writable is not None:
                await self._writable
            if self._closed:
                return
        if length is None:
            self._transport.write(b"0\r\n\r\n")
        elif left:
            raise ConfigError(f"the body has not the {length} bytes that its content-length says")

    async def until_head(self, seconds: float) -> None:
        """Wait for the answer to begin; raises CallTimeout and ConnectionLost."""
        while not self.status:
            await self._wait(seconds)

    async def until_complete(self, seconds: float) -> bytes:
        """Wait for the whole answer, and return its body as it came.

        Raises:
            CallTimeout: it was not there in time.
            ConnectionLost: the connection broke, or what came is no HTTP.
            AnswerTooLarge: it is larger than allowed.
        """
        if not self.complete:
            await self._wait(seconds)
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    async def next_piece(self, seconds: float) -> bytes:
        """Return the next part of the body, ``b""`` at its end; raises as the others."""
        while not self._pieces and not self.complete:
            await self._wait(seconds)
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        self._size -= len(piece)
        if self._paused and self._size < MOST_BUFFERED and not self._closed:
            self._paused = False
            self._transport.resume_reading()
        return piece

    def abort(self) -> None:
        """Close at once, whatever is under way: the peer sees that nobody waits any more."""
        self.reusable = False
        self._lasting = False  # so this end is none of the body's
        self._transport.abort()

    def fail(self, error: CallError) -> None:
        """Close at once; whoever waits for the answer gets the error."""
        if self._error is None:
            self._error = error
            self._wake()
        self.abort()

    def _expire(self) -> None:
        self.fail(too_slow())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, seconds: float) -> None:
        if self._error is None:
            self._waiter = waiter = self._loop.create_future()
            timer = None if seconds == math.inf else self._loop.call_later(seconds, self._expire)
            try:
                await waiter
            finally:
                if timer is not None:
                    timer.cancel()
                self._waiter = None
        if self._error is not None:
            raise self._error


def too_slow() -> CallTimeout:
    """Return the error for an answer that did not come in time."""
    return CallTimeout("did not answer in time")


def too_large(most: int) -> AnswerTooLarge:
    """Return the error for an answer of more than ``most`` bytes."""
    return AnswerTooLarge(f"sent more than the {most} bytes that an answer may have")


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
