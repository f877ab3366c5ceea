"""The transport on pyreqwest (Rust's reqwest). Import it on use: nothing else needs the library.

One thing the library does not do: a cancelled call returns at once, but its request is not
withdrawn. It ends with the call's timeout, so every request gets one, streams included.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import (
    ClientClosedError,
    DecodeError,
    PyreqwestError,
    RequestTimeoutError,
)
from pyreqwest.http import HeaderMap
from pyreqwest.request import RequestBuilder, StreamRequest
from pyreqwest.response import Response

from meshkit.client.headers import Headers
from meshkit.client.transport import HttpTransport, RawResponse, RawStream, Request
from meshkit.errors import CallError, CallTimeout, ConfigError, ConnectError, ConnectionLost

CONNECT_TIMEOUT = 1.0
# Shorter than what servers grant (ours 75 s), so that the client is the one who closes: a
# request never meets a connection that is just being closed.
POOL_IDLE_TIMEOUT = 30.0

WHOLE = 0  # the client without a read timeout, for answers read as a whole

# The one cause that says the request never left. The exception's class does not: ConnectError
# is also raised when the peer closed after reading the request.
NEVER_SENT = "client error (Connect)"

# The library's thread lets go of Python a moment after its last answer; a program that ended
# before that was aborted (one in twenty of those that make a single call).
SETTLE = 0.05

log = logging.getLogger("meshkit.client")


class PyreqwestTransport(HttpTransport):
    """See the module. The library's clients take 10-20 ms to make and are made on use."""

    def __init__(self) -> None:
        self._clients: dict[int, Client] = {}
        self._closed = False

    async def send(self, request: Request) -> RawResponse:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        client = self._clients.get(WHOLE) or self._connect(WHOLE)
        builder = _build(client, request).timeout(timedelta(seconds=request.timeout))
        try:
            answer = await builder.build().send()
            content = (await answer.bytes()).to_bytes()
        except PyreqwestError as error:
            raise translate(error) from None
        return RawResponse(answer.status, _headers(answer.headers), answer.version, content)

    async def stream(self, request: Request) -> RawStream:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        # A read timeout can be set only for a whole client. It is there to end what was given up;
        # rounded up to a power of two, a handful of clients serve all timeouts.
        limit = 1 << math.ceil(request.timeout).bit_length()
        client = self._clients.get(limit) or self._connect(limit)
        # With a read-ahead the answer would only begin when its first 64 KiB are there.
        exchange = _build(client, request).streamed_read_buffer_limit(0).build_streamed()
        try:
            async with asyncio.timeout(request.timeout):
                answer = await exchange.__aenter__()  # left again by PyreqwestStream.aclose()
        except PyreqwestError as error:
            raise translate(error) from None
        except TimeoutError:
            raise _too_slow() from None
        return PyreqwestStream(exchange, answer, request.timeout)

    async def aclose(self) -> None:
        """See :class:`~meshkit.client.transport.HttpTransport`."""
        self._closed = True
        if not self._clients:
            return
        while self._clients:
            await self._clients.popitem()[1].close()
        await asyncio.sleep(SETTLE)

    def _connect(self, read_timeout: int) -> Client:
        if self._closed:
            raise _closed()
        builder = (
            ClientBuilder()
            .http1_only()
            .no_proxy()
            .referer(enable=False)
            .follow_redirects(enable=False)
            .default_cookie_store(enable=False)
            .user_agent("meshkit")
            .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT))
            .pool_idle_timeout(timedelta(seconds=POOL_IDLE_TIMEOUT))
        )
        if read_timeout != WHOLE:
            builder = builder.read_timeout(timedelta(seconds=read_timeout))
        client = self._clients[read_timeout] = builder.build()
        return client


def _build(client: Client, request: Request) -> RequestBuilder:
    try:
        builder = client.request(request.method, request.url).headers(request.headers)
    except ValueError:
        # The caller checks the rest: what is left is a host that stands in no URL.
        raise ConnectError("has an address that is not valid") from None
    content = request.content
    if content is None:
        return builder
    if isinstance(content, bytes):
        return builder.body_bytes(content)
    return builder.body_stream(content)


class PyreqwestStream(RawStream):
    """An answer of which the body is read piece by piece."""

    __slots__ = ("_body", "_exchange", "_timeout")

    def __init__(self, exchange: StreamRequest, answer: Response, timeout: float) -> None:
        super().__init__(answer.status, _headers(answer.headers), answer.version)
        self._exchange: StreamRequest | None = exchange
        self._body = answer.body_reader
        self._timeout = timeout

    async def read(self) -> bytes:
        """See :class:`~meshkit.client.transport.RawStream`."""
        if self._exchange is None:
            raise ConfigError("the stream is closed: read it within its `async with`")
        try:
            async with asyncio.timeout(self._timeout):
                piece = await self._body.read_chunk()
        except PyreqwestError as error:
            raise translate(error) from None
        except TimeoutError:
            raise _too_slow() from None
        return b"" if piece is None else piece.to_bytes()

    async def aclose(self) -> None:
        """See :class:`~meshkit.client.transport.RawStream`."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.__aexit__(None, None, None)


def translate(error: PyreqwestError) -> CallError:
    """Return our error for the library's; whatever is not surely unsent may have had an effect."""
    causes = _causes(error)
    # The first cause quotes the URL, whose query may hold a secret.
    reason = causes[-1] if len(causes) > 1 else error.message
    if NEVER_SENT in causes:
        return ConnectError(_unreachable(reason))
    if isinstance(error, RequestTimeoutError):
        return _too_slow()
    if isinstance(error, ClientClosedError):
        return _closed()
    if isinstance(error, DecodeError):
        return ConnectionLost(f"sent no valid answer ({reason})")
    return ConnectionLost(f"broke the connection ({reason})")


def _causes(error: PyreqwestError) -> list[str]:
    details = getattr(error, "details", None) or {}
    return [cause["message"] for cause in details.get("causes") or ()]


def _unreachable(reason: str) -> str:
    if reason.startswith("Connection refused"):
        return "refused the connection"
    if reason in ("deadline has elapsed", "operation timed out"):
        return f"did not accept a connection within {CONNECT_TIMEOUT:g} s"
    return f"can't be reached ({reason})"


def _too_slow() -> CallTimeout:
    return CallTimeout("did not answer in time")


def _closed() -> CallError:
    return CallError("can't be called: the HTTP client is closed")


def _headers(found: HeaderMap) -> Headers:
    try:
        return Headers(found.items())
    except ValueError:  # the library has no way to show a value that is not UTF-8
        return Headers(_readable(found))


def _readable(found: HeaderMap) -> Iterator[tuple[str, str]]:
    for name in dict.fromkeys(found.keys()):
        try:
            values = found.getall(name)
        except ValueError:
            log.debug("header %s of an answer is not UTF-8 and is left out", name)
        else:
            yield from ((name, value) for value in values)
