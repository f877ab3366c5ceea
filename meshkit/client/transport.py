"""The interface behind which the HTTP library sits: one attempt to one address, nothing more.

A transport does not retry, follow redirects, keep cookies or read proxy settings. It raises
exactly these errors for what the network does: :class:`~meshkit.errors.ConnectError` only when the
request surely never left, :class:`~meshkit.errors.CallTimeout`,
:class:`~meshkit.errors.AnswerTooLarge`, and :class:`~meshkit.errors.ConnectionLost` for everything
else; and a bare :class:`~meshkit.errors.CallError` when it is closed. Their messages are predicates
("refused the connection"): the caller knows whom it called, and completes the sentence.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import AsyncIterable, Collection, Sequence
from urllib.parse import urlsplit

from meshkit.client.headers import Headers
from meshkit.model import Instance

Content = bytes | AsyncIterable[bytes] | None


@dataclasses.dataclass(slots=True, repr=False)  # frozen, each would cost a microsecond more
class Request:
    """One attempt.

    Attributes:
        method: in upper case.
        url: absolute and percent-encoded, ``http://host:port/path?query``.
        headers: pairs to send; names may repeat.
        content: the whole body, its pieces, or None.
        timeout: seconds until the answer is complete; for a stream until it begins, and then
            between two pieces of it.
        peer: id of the instance that is meant: connections to it serve nobody else, also when
            another one has its address by now.
        most: bytes that the body of an answer may have, decompressed; any number if 0. For
            :meth:`HttpTransport.send`: who streams counts what it reads.
    """

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    content: Content
    timeout: float
    peer: str = ""
    most: int = 0

    def __repr__(self) -> str:
        # The query, the headers and the body may hold secrets.
        return f"<Request {self.method} {urlsplit(self.url).path}>"


@dataclasses.dataclass(slots=True)  # likewise
class RawResponse:
    """A complete answer."""

    status_code: int
    headers: Headers
    http_version: str
    content: bytes = dataclasses.field(repr=False)


class RawStream(abc.ABC):
    """An answer whose body is still to come.

    Attributes:
        status_code: the status.
        headers: the headers.
        http_version: as in ``"HTTP/1.1"``.
        timeout: seconds until the next piece of the body has to be there; may be changed,
            ``math.inf`` is no limit.
    """

    __slots__ = ("headers", "http_version", "status_code", "timeout")

    def __init__(
        self, status_code: int, headers: Headers, http_version: str, timeout: float
    ) -> None:
        self.status_code = status_code
        self.headers = headers
        self.http_version = http_version
        self.timeout = timeout

    @abc.abstractmethod
    async def read(self) -> bytes:
        """Return the next piece of the body as it arrived, ``b""`` at its end.

        Raises:
            ConnectionLost: the body broke off.
            CallTimeout: the next piece did not come in time.
        """

    @abc.abstractmethod
    def interrupt(self) -> None:
        """Break off: whoever reads gets ConnectionLost, now or when it has what is there."""

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Let go of the connection, whether or not all was read. Closing twice is safe."""


class HttpTransport(abc.ABC):
    """Sends requests. One object is shared by all clients of an event loop."""

    @abc.abstractmethod
    async def send(self, request: Request) -> RawResponse:
        """Send, and read the whole answer; see the module for the errors."""

    @abc.abstractmethod
    async def stream(self, request: Request) -> RawStream:
        """Send, and return as soon as the answer begins; see the module for the errors."""

    @abc.abstractmethod
    def keep(self, service: str, instances: Collection[Instance]) -> None:
        """Learn the new list of a service: whoever left it keeps no connection.

        Idle ones are closed at once, those with a call under way when it ends.
        """

    @abc.abstractmethod
    async def aclose(self) -> None:
        """End calls in flight and close all connections. Closing twice is safe."""
