"""One line for each request: over HTTP here, over gRPC in grpc_access_log."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from meshkit.context import OUTSIDE, CallContext, current
from meshkit.server.answer import ASGIApp, Message, Receive, Scope, Send

AGENT = b"user-agent"
LONGEST = 200  # characters of what others name themselves

log = logging.getLogger("meshkit.access")


class Entry(NamedTuple):
    """What a line tells.

    Attributes:
        method: GET and so on, WEBSOCKET, or GRPC.
        path: as it was sent, but without the query, which may hold what is nobody's business.
        status: HTTP's number, or gRPC's name; ``aborted`` when there was no answer.
        duration_ms: until the answer was complete.
        bytes: of the answer, without its headers.
        request_id: of the call's context.
        peer: address of whoever is connected.
        agent: how the caller names itself.
        deadline_ms: what was left of the caller's time then; None when it named no time.
    """

    method: str
    path: str
    status: int | str
    duration_ms: float
    bytes: int
    request_id: str
    peer: str
    agent: str
    deadline_ms: int | None

    def __str__(self) -> str:
        left = "" if self.deadline_ms is None else f" left={self.deadline_ms}ms"
        return (
            f"{self.method} {self.path} {self.status} {self.duration_ms:g}ms {self.bytes}B "
            f"id={self.request_id} from={self.peer} agent={self.agent!a}{left}"
        )


def through_logging(entry: Entry) -> None:
    """Hand an entry to the logger ``meshkit.access``; each field is an attribute of the record."""
    if log.isEnabledFor(logging.INFO):
        log.info("%s", entry, extra=entry._asdict())


class AccessLog:
    """Where entries go.

    Attributes:
        write: takes an entry; ``meshkit run`` puts something faster here than logging is.
    """

    write: Callable[[Entry], None] = staticmethod(through_logging)


def entry(
    *,
    method: str,
    path: str,
    status: int | str,
    began: float,
    sent: int,
    call: CallContext,
    deadline: float | None,
    peer: str,
    agent: str,
) -> Entry:
    """Return the entry of a request that ends now.

    ``began`` is on ``time.perf_counter()``; ``deadline`` on ``time.monotonic()``, and apart from
    the call's own, which the end of the answer lifts; ``sent`` counts bytes.
    """
    left = None if deadline is None else round((deadline - time.monotonic()) * 1000)
    taken = round((time.perf_counter() - began) * 1000, 3)
    agent = agent[:LONGEST]
    return Entry(method, path, status, taken, sent, call.request_id, peer, agent, left)


class HttpAccessLog:
    """Writes a line for each HTTP request when its answer is complete, or given up.

    Args:
        app: what is behind.
        quiet: paths without a line, those that are asked every few seconds.
    """

    def __init__(self, app: ASGIApp, quiet: Collection[str]) -> None:
        self._app = app
        self._quiet = frozenset(quiet)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """See the class."""
        if scope["type"] == "lifespan" or scope["path"] in self._quiet:
            return self._app(scope, receive, send)
        return self._logged(Exchange(scope, send), receive)

    async def _logged(self, exchange: Exchange, receive: Receive) -> None:
        try:
            await self._app(exchange.scope, receive, exchange.send)
        finally:
            if exchange.open:
                exchange.end()


class Exchange:
    """One request and its answer, as far as the line has to know them."""

    __slots__ = ("_began", "_call", "_deadline", "_send", "_sent", "_status", "open", "scope")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.open = True
        self._send = send
        self._began = time.perf_counter()
        self._call = OUTSIDE
        self._deadline: float | None = None
        self._status: int | str = "aborted"  # until an answer begins
        self._sent = 0

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on; not a coroutine itself, to save a frame."""
        kind = message["type"]
        if kind == "http.response.body":
            self._sent += len(message.get("body", b""))
            if not message.get("more_body"):
                self.end()
        elif kind == "websocket.send":
            self._sent += len(message.get("bytes") or message.get("text") or "")
        elif kind in STARTS:
            self._status = message.get("status", STARTS[kind])
            # Here, for the end of the answer lifts the deadline.
            self._call = current()
            self._deadline = self._call.deadline
        return self._send(message)

    def end(self) -> None:
        """Write the line."""
        self.open = False
        scope = self.scope
        client = scope.get("client")
        agent = b""
        for name, value in scope["headers"]:
            if name == AGENT:
                agent = value
                break
        found = entry(
            method=scope.get("method", "WEBSOCKET"),
            # As it was sent, so that no decoded character breaks the line.
            path=scope["raw_path"].decode("ascii"),
            status=self._status,
            began=self._began,
            sent=self._sent,
            call=self._call if self._call is not OUTSIDE else current(),
            deadline=self._deadline,
            peer=client[0] if client else "",
            agent=agent.decode("latin-1"),
        )
        AccessLog.write(found)


# Messages that tell the status, and which one where they do not name it.
STARTS = {
    "http.response.start": 500,
    "websocket.accept": 101,
    "websocket.close": 403,
    "websocket.http.response.start": 403,
}
