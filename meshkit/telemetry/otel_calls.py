"""A span and a duration for each HTTP call, with an event for each attempt that was not enough."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind

from meshkit import identity
from meshkit.client.call import Answer, Call, Raw
from meshkit.client.exchange import Exchange, Send
from meshkit.client.transport import Request
from meshkit.context import current
from meshkit.propagation import TRACEPARENT, TRACESTATE
from meshkit.telemetry.otel_spans import (
    Telemetry,
    error_type,
    failed,
    local_parent,
    traceparent,
    tracestate,
)

CARRIED = frozenset({TRACEPARENT, TRACESTATE})


class TracedExchange:
    """Makes calls as the exchange does, each in a span that travels along with it.

    The span of a streamed answer ends when the answer begins.
    """

    def __init__(self, exchange: Exchange, service: str, telemetry: Telemetry) -> None:
        self._exchange = exchange
        self._service = service
        self._telemetry = telemetry
        self.failed = exchange.failed

    async def run(self, call: Call, send: Send[Raw]) -> Answer[Raw]:
        """See Exchange."""
        began = time.perf_counter()
        known: dict[str, Any] = {
            "http.request.method": call.method,
            "server.address": self._service,
        }
        span = self._telemetry.tracer.start_span(
            f"{call.method} {self._service}", local_parent(current()), SpanKind.CLIENT, known
        )
        _carry(call, span)
        attempts = _Attempts(span, send) if span.is_recording() else None
        try:
            answer = await self._exchange.run(call, attempts.send if attempts else send)
        except BaseException as error:
            known["error.type"] = error_type(error)
            if isinstance(error, Exception):
                failed(span, known["error.type"], str(error))
            raise
        else:
            status = known["http.response.status_code"] = answer.raw.status_code
            if status >= 400:
                known["error.type"] = str(status)
                failed(span, known["error.type"])
            _describe(span, call, answer)
            return answer
        finally:
            if attempts is not None:
                attempts.finish()
                span.set_attributes(known)
                span.set_attribute("service.peer.name", self._service)
                if call.attempts > 1:
                    span.set_attribute("http.request.resend_count", call.attempts - 1)
            seconds = time.perf_counter() - began
            self._telemetry.http_client.record(seconds, known, otel_context.get_current())
            span.end()


def _carry(call: Call, span: Span) -> None:
    """Let the call's headers name the span, whatever they have named before."""
    found = span.get_span_context()
    if not found.is_valid:
        return
    headers = [pair for pair in call.headers if pair[0] not in CARRIED]
    headers.append((TRACEPARENT, traceparent(found)))
    if state := tracestate(found):
        headers.append((TRACESTATE, state))
    call.headers = headers


def _describe(span: Span, call: Call, answer: Answer[Any]) -> None:
    """Say who has answered."""
    if span.is_recording():
        endpoint = answer.pick.endpoint
        span.set_attributes(
            {
                "url.full": f"http://{endpoint}{call.path}",  # the query may hold secrets
                "network.peer.address": endpoint.host,
                "network.peer.port": endpoint.port,
                "meshkit.instance.id": answer.pick.instance.id,
            }
        )


class _Attempts:
    """Writes an event for each attempt of one call, but for a single good one."""

    __slots__ = ("_begun", "_send", "_span", "_under_way")

    def __init__(self, span: Span, send: Send[Any]) -> None:
        self._span = span
        self._send = send
        self._begun = 0
        self._under_way: dict[int, tuple[Request, str, float]] = {}

    async def send(self, request: Request) -> Any:
        """Make an attempt."""
        number = self._begun = self._begun + 1
        kind = "first" if number == 1 else "hedge" if self._under_way else "retry"
        self._under_way[number] = request, kind, time.perf_counter()
        outcome = "beaten"
        try:
            raw = await self._send(request)
            outcome = "shed" if identity.SHED in raw.headers else str(raw.status_code)
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                outcome = type(error).__name__
            raise
        else:
            return raw
        finally:
            self._ended(number, outcome)

    def finish(self) -> None:
        """Note that the call ends, and that what is still under way comes too late."""
        for number in tuple(self._under_way):
            self._ended(number, "beaten")

    def _ended(self, number: int, outcome: str) -> None:
        known = self._under_way.pop(number, None)
        if known is None or (number == 1 and outcome.startswith("2")):
            return
        request, kind, began = known
        self._span.add_event(
            "meshkit.attempt",
            {
                "meshkit.attempt.kind": kind,
                "meshkit.attempt.outcome": outcome,
                "meshkit.attempt.duration": time.perf_counter() - began,
                "meshkit.instance.id": request.peer,
                "network.peer.address": urlsplit(request.url).netloc,
            },
        )
