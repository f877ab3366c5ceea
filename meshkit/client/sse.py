"""Server-sent events of a service: a stream that outlives the instances it comes from."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from meshkit.client.response import StreamResponse
from meshkit.client.sse_parser import EventParser, ServerSentEvent
from meshkit.discovery.target import Target
from meshkit.errors import (
    AnswerTooLarge,
    BreakerOpen,
    BulkheadFull,
    CallError,
    CallTimeout,
    ConfigError,
    ConnectError,
    ConnectionLost,
    HTTPStatusError,
    NoInstances,
    WrongInstance,
)
from meshkit.model import Instance

MEDIA_TYPE = "text/event-stream"
# Three of the comments that servers send every 15 s to keep a silent stream open (FastAPI and
# sse-starlette do).
IDLE_TIMEOUT = 45.0
FIRST_PAUSE = 0.2  # many lose their stream at once when an instance ends
MOST_PAUSE = 30.0

HEADERS = (("accept", MEDIA_TYPE), ("cache-control", "no-store"))

PASSING = (
    BreakerOpen,
    BulkheadFull,
    CallTimeout,
    ConnectError,
    ConnectionLost,
    NoInstances,
    WrongInstance,
)

log = logging.getLogger("meshkit.client")

Open = Callable[[list[tuple[str, str]]], AbstractAsyncContextManager[StreamResponse]]


class EventStream(AsyncIterator[ServerSentEvent]):
    """The events of one stream; made by :meth:`~meshkit.HttpClient.sse`.

    ::

        async with users.sse("/events") as events:
            async for event in events:
                print(event.event, event.data, event.id)

    When the stream ends or breaks off, it is opened anew on another instance with the header
    ``Last-Event-ID``, as browsers do, until the server answers 204 or the block is left. It also
    moves, between two events, when its instance leaves: a draining server need not wait for it.

    Attributes:
        response: the answer that the events come from, None before it is there.
        last_event_id: what the next connection would ask to go on after.
        reconnects: how often the stream was opened anew.
    """

    def __init__(
        self,
        opener: Open,
        target: Target,
        *,
        reconnect: bool,
        idle_timeout: float | None,
        last_event_id: str,
    ) -> None:
        if idle_timeout is not None and not idle_timeout > 0:
            message = f"{target.service}: idle_timeout must be more than 0 s, not {idle_timeout:g}"
            raise ConfigError(message)
        self.response: StreamResponse | None = None
        self.reconnects = 0
        self._open = opener
        self._target = target
        self._reconnect = reconnect
        self._idle_timeout = idle_timeout
        self._parser = EventParser(last_event_id)
        self._ready: deque[ServerSentEvent] = deque()
        self._context: AbstractAsyncContextManager[StreamResponse] | None = None
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._forget: Callable[[], None] = lambda: None
        self._failures = 0
        self._ended = False

    @property
    def last_event_id(self) -> str:
        """The id of the last event that arrived."""
        return self._parser.last_event_id

    async def __aenter__(self) -> Self:
        await self._connect()
        if self._reconnect:
            self._forget = self._target.on_change(self._listed)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        self._forget()
        await self._disconnect(kind, error, traceback)

    async def __anext__(self) -> ServerSentEvent:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            if self._context is None and self.response is None:
                raise ConfigError(
                    f"{self._target.service}: the stream is not open: "
                    f"async with client.sse(...) as events, then async for event in events"
                )
            if self._pieces is None:
                await self._connect_again()
            else:
                await self._receive(self._pieces)
        return self._ready.popleft()

    async def _receive(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Take the next piece of the stream, or note that it is over."""
        try:
            piece = await anext(pieces, b"")
            self._ready.extend(self._parse(piece))
        except CallError as error:
            if not self._reconnect or not _may_pass(error):
                raise
            log.debug("%s; connecting again", error)
            piece = b""
        if piece:
            self._failures = 0
            return
        await self._disconnect()
        self._ended |= not self._reconnect

    def _parse(self, piece: bytes) -> list[ServerSentEvent]:
        try:
            return self._parser.feed(piece)
        except AnswerTooLarge as error:
            raise AnswerTooLarge(f"{self._about()} {error}") from None

    async def _connect(self) -> None:
        headers = list(HEADERS)
        if self.last_event_id:
            headers.append(("last-event-id", self.last_event_id))
        context = self._open(headers)
        response = await context.__aenter__()
        self._context = context
        try:
            self._check(response)
        except BaseException as error:
            await self._disconnect(type(error), error, error.__traceback__)
            raise
        self.response = response
        response.idle_timeout = self._idle_timeout
        self._parser = EventParser(self.last_event_id)
        self._pieces = response.aiter_bytes()

    def _check(self, response: StreamResponse) -> None:
        if response.status_code == 204:  # how a server says that there will be no more
            self._ended = True
            return
        response.raise_for_status()
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != MEDIA_TYPE:
            found = media_type or "no content type"
            raise CallError(f"{self._about(response)} answered with {found}, not {MEDIA_TYPE}")

    def _about(self, response: StreamResponse | None = None) -> str:
        response = response or self.response
        assert response is not None
        path = urlsplit(response.url).path
        method = response.request.method
        return f"{self._target.service}: {method} {path}: {response.instance.id}"

    async def _connect_again(self) -> None:
        """Open the stream anew, as often as it takes."""
        while True:
            await asyncio.sleep(self._pause())
            self._failures += 1
            try:
                await self._connect()
            except CallError as error:
                if not _may_pass(error):
                    raise
                log.debug("%s; connecting again", error)
            else:
                self.reconnects += 1
                return

    def _pause(self) -> float:
        """Return seconds: at least what the server asked for, with jitter and growing on top."""
        asked = (self._parser.retry or 0) / 1000
        bound = min(MOST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 16))
        return asked + random.uniform(0, bound)  # noqa: S311 - no secret

    async def _disconnect(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        context, self._context = self._context, None
        self._pieces = None
        if context is not None:
            await context.__aexit__(kind, error, traceback)

    def _listed(self, instances: Sequence[Instance]) -> None:
        """Leave an instance that leaves, if there is another one; between two events."""
        response = self.response
        if response is None or self._context is None or not self._parser.between_events:
            return
        serving = {each.id for each in instances if each.up and "http" in each.endpoints}
        if serving and response.instance.id not in serving:
            response.interrupt()


def _may_pass(error: CallError) -> bool:
    """Whether a later attempt may go better."""
    if isinstance(error, HTTPStatusError):
        return error.status_code >= 500 or error.status_code == 429
    return isinstance(error, PASSING)
