"""Answers, read as httpx's are."""

from __future__ import annotations

import codecs
import io
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from email.message import Message
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from meshkit.client.headers import Headers
from meshkit.client.transport import RawResponse, RawStream, Request
from meshkit.errors import CallError, ConfigError, HTTPStatusError
from meshkit.model import Instance


class Response:
    """A complete answer.

    Attributes:
        status_code: 100-599.
        headers: read in any case; ``get_list`` for those that repeat.
        http_version: as in ``"HTTP/1.1"``.
        request: the request that was answered (``method``, ``url``, ``headers``).
        instance: who answered.
        attempts: how many instances were tried, this one included.
        elapsed: from the call until the answer, earlier attempts included; for a stream until
            the answer began. A timedelta.
    """

    __slots__ = (
        "_content",
        "_seconds",
        "attempts",
        "headers",
        "http_version",
        "instance",
        "request",
        "status_code",
    )

    def __init__(
        self,
        raw: RawResponse | RawStream,
        *,
        request: Request,
        instance: Instance,
        attempts: int,
        seconds: float,
    ) -> None:
        self.status_code = raw.status_code
        self.headers: Headers = raw.headers
        self.http_version = raw.http_version
        self.request = request
        self.instance = instance
        self.attempts = attempts
        self._seconds = seconds
        self._content = raw.content if isinstance(raw, RawResponse) else None

    @property
    def elapsed(self) -> timedelta:
        """From the call until the answer, earlier attempts included; see the class."""
        return timedelta(seconds=self._seconds)

    @property
    def content(self) -> bytes:
        """The body. Raises ConfigError for a stream that was not read with ``aread()``."""
        if self._content is None:
            raise ConfigError("the body of a stream has to be read first: await response.aread()")
        return self._content

    @property
    def text(self) -> str:
        """The body as text; bytes that do not fit the encoding become U+FFFD."""
        return self.content.decode(self.encoding, errors="replace")

    def json(self, **options: Any) -> Any:
        """Read the body as JSON; ``options`` as for ``json.loads``. Raises ValueError."""
        return json.loads(self.content, **options)

    @property
    def encoding(self) -> str:
        """The charset of the content type, ``utf-8`` when it has none or an unknown one."""
        declared = Message()
        declared["content-type"] = self.headers.get("content-type", "")
        charset = declared.get_content_charset("utf-8")
        try:
            " ".encode(charset)  # not every codec that Python knows is one of text
        except (LookupError, ValueError):
            return "utf-8"
        return charset

    @property
    def url(self) -> str:
        """The URL that was asked, with the address of the instance."""
        return self.request.url

    @property
    def reason_phrase(self) -> str:
        """The standard's words for the status, empty for an unknown one."""
        try:
            return HTTPStatus(self.status_code).phrase
        except ValueError:
            return ""

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def is_redirect(self) -> bool:
        """Whether the status is 3xx. Redirects are not followed."""
        return 300 <= self.status_code < 400

    @property
    def is_client_error(self) -> bool:
        """Whether the status is 4xx."""
        return 400 <= self.status_code < 500

    @property
    def is_server_error(self) -> bool:
        """Whether the status is 5xx."""
        return 500 <= self.status_code < 600

    @property
    def is_error(self) -> bool:
        """Whether the status is 4xx or 5xx."""
        return 400 <= self.status_code < 600

    def raise_for_status(self) -> Self:
        """Return this answer when it is 2xx.

        Raises:
            HTTPStatusError: any other status, redirects included, as they are not followed.
        """
        if self.is_success:
            return self
        status = f"{self.status_code} {self.reason_phrase}".rstrip()
        towards = f" to {self.headers['location']}" if "location" in self.headers else ""
        raise HTTPStatusError(
            f"{self.instance.service}: {self.request.method} {urlsplit(self.url).path}: "
            f"{self.instance.id} answered {status}{towards}",
            status_code=self.status_code,
            response=self,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.status_code} {self.reason_phrase}]>"


class StreamResponse(Response):
    """An answer whose body is still to come. Read it once, in one of the four ways.

    Reading raises :class:`~meshkit.errors.ConnectionLost` when the body breaks off, and
    :class:`~meshkit.errors.CallTimeout` when its next piece takes longer than the timeout.
    """

    __slots__ = ("_interrupted", "_stream", "failed")

    def __init__(self, stream: RawStream, **about: Any) -> None:
        super().__init__(stream, **about)
        self._stream = stream
        self.failed = False  # reading did; the client reports it to the balancer
        self._interrupted = False

    @property
    def idle_timeout(self) -> float | None:
        """Seconds until the next piece of the body has to be there; None for no limit."""
        return None if self._stream.timeout == math.inf else self._stream.timeout

    @idle_timeout.setter
    def idle_timeout(self, seconds: float | None) -> None:
        self._stream.timeout = math.inf if seconds is None else seconds

    def interrupt(self) -> None:
        """Break off: whoever reads gets ConnectionLost, which does not count as a failure."""
        self._interrupted = True
        self._stream.interrupt()

    async def aiter_bytes(self) -> AsyncGenerator[bytes, None]:
        """Yield the body in pieces as they arrive, decompressed."""
        if self._content is not None:
            yield self._content
            return
        while piece := await self._read():
            yield piece

    async def aiter_text(self) -> AsyncIterator[str]:
        """Yield the body as text; a character is never cut in two."""
        decoder = codecs.getincrementaldecoder(self.encoding)(errors="replace")
        async for piece in self.aiter_bytes():
            if text := decoder.decode(piece):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    async def aiter_lines(self) -> AsyncIterator[str]:
        """Yield the body line by line, without the line ends: LF, CRLF or CR."""
        ends = io.IncrementalNewlineDecoder(None, translate=True)
        parts: list[str] = []
        async for text in self.aiter_text():
            first, *lines = ends.decode(text).split("\n")
            parts.append(first)
            for line in lines:
                yield "".join(parts)
                parts = [line]
        if rest := "".join(parts) + ends.decode("", final=True):
            yield rest.removesuffix("\n")

    async def aread(self) -> bytes:
        """Read the whole body; ``content``, ``text`` and ``json()`` work from then on."""
        if self._content is None:
            self._content = b"".join([piece async for piece in self.aiter_bytes()])
        return self._content

    async def _read(self) -> bytes:
        try:
            return await self._stream.read()
        except CallError as error:
            self.failed = not self._interrupted
            raise type(error)(
                f"{self.instance.service}: {self.request.method} {urlsplit(self.url).path}: "
                f"{self.instance.id} {error}"
            ) from None
