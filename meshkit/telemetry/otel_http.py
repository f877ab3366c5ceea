"""A span and a duration for each HTTP request that the application handles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from time import perf_counter, time_ns
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind

from meshkit.context import CallContext, current
from meshkit.server.answer import ASGIApp, Message, Receive, Scope, Send
from meshkit.server.fastapi_telemetry import KEY
from meshkit.telemetry.otel_spans import Telemetry, enter_span, error_type, failed, remote_parent

# As the conventions have it: anybody may send any word.
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
OTHER = "_OTHER"


class Traced:
    """Stands between our layer, which makes the call's context, and the application.

    WebSockets pass: they are there to last, and FastAPI traces them itself.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """See the class; not a coroutine itself, to save a frame."""
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        scope[KEY] = None  # FastAPI would trace it as well
        return HttpSpan(self._telemetry, scope, send).run(self._app, receive)


class HttpSpan:
    """One request; what the application gets as its ``send``."""

    __slots__ = (
        "_call",
        "_done",
        "_method",
        "_over",
        "_scope",
        "_send",
        "_span",
        "_status",
        "_telemetry",
    )

    def __init__(self, telemetry: Telemetry, scope: Scope, send: Send) -> None:
        self._telemetry = telemetry
        self._scope = scope
        self._send = send
        self._status = 0
        self._done = 0
        self._over = 0.0
        method = scope["method"]
        self._method = method if method in METHODS else OTHER
        self._call: CallContext = current()
        self._span: Span = telemetry.tracer.start_span(
            self._method,
            remote_parent(self._call),
            SpanKind.SERVER,
            {
                "http.request.method": self._method,
                "url.path": scope["path"],
                "url.scheme": scope.get("scheme", "http"),
            },
        )

    def __call__(self, message: Message) -> Awaitable[None]:
        """Note a part of the answer, and pass it on."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif not message.get("more_body"):
            # What follows are background tasks, whose spans are inside of this one too.
            self._over, self._done = perf_counter(), time_ns()
        return self._send(message)

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Let the application answer, in the span: the task is this request's own."""
        began = perf_counter()
        if (inside := enter_span(self._call, self._span)) is not None:
            otel_context.attach(inside)
        deadline = self._call.deadline
        error: BaseException | None = None
        try:
            await app(self._scope, receive, self)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if not self._status and error is not None:
                self._status = self._answered_for(error, deadline)
            self._end((self._over or perf_counter()) - began, error)

    @staticmethod
    def _answered_for(error: BaseException, deadline: float | None) -> int:
        """Return the status that others send for a request without an answer, 0 for none."""
        if not isinstance(error, asyncio.CancelledError):
            return 500
        late = deadline is not None and deadline <= time.monotonic()
        return 504 if late else 0

    def _end(self, seconds: float, error: BaseException | None) -> None:
        status, span = self._status, self._span
        route = getattr(self._scope.get("route"), "path", None)
        known: dict[str, Any] = {"http.request.method": self._method}
        if status:
            known["http.response.status_code"] = status
        if route:
            known["http.route"] = route
        kind = ""
        if status >= 500 or not status:
            kind = error_type(error) if error is not None else str(status or "no answer")
        if span.is_recording():
            self._describe(span, known, route)
            if kind:
                failed(span, kind)
                if isinstance(error, Exception):
                    span.record_exception(error)
        if kind:
            known["error.type"] = kind
        known["url.scheme"] = self._scope.get("scheme", "http")
        self._telemetry.http_server.record(seconds, known, otel_context.get_current())
        span.end(self._done or None)

    def _describe(self, span: Span, known: dict[str, Any], route: str | None) -> None:
        """Set what is worth its cost only for spans that somebody will read."""
        scope = self._scope
        described = {**known, "network.protocol.version": scope.get("http_version", "1.1")}
        if (client := scope.get("client")) is not None:
            described["client.address"] = client[0]
        if (server := scope.get("server")) is not None:
            described["server.address"], described["server.port"] = server
        if (agent := self._call.header("user-agent")) is not None:
            described["user_agent.original"] = agent
        if self._call.request_id:
            described["meshkit.request_id"] = self._call.request_id
        span.set_attributes(described)
        if route:
            method = "HTTP" if self._method == OTHER else self._method
            span.update_name(f"{method} {route}")
