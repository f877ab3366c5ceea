"""A span and a duration for each gRPC call, with an event for each attempt that was not enough."""

from __future__ import annotations

import time
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry.trace import SpanKind

from meshkit.client.grpc.attempt import Attempt
from meshkit.client.grpc.attempts import Attempts
from meshkit.client.grpc.errors import Cancelled
from meshkit.client.grpc.verdict import finished
from meshkit.context import current
from meshkit.propagation import TRACEPARENT, TRACESTATE
from meshkit.telemetry.otel_grpc import rpc_attributes
from meshkit.telemetry.otel_spans import Telemetry, failed, local_parent, traceparent, tracestate

CARRIED = frozenset({TRACEPARENT, TRACESTATE})


class RpcTrace:
    """One call; a span that travels along with it."""

    __slots__ = ("_began", "_call", "_known", "_span", "_telemetry", "_tried")

    def __init__(self, telemetry: Telemetry, call: Attempts) -> None:
        self._telemetry = telemetry
        self._call: Attempts | None = call
        self._tried = 0
        self._began = time.perf_counter()
        path = call.method_path
        self._known = {**rpc_attributes(path), "server.address": call.service}
        name, parent = path.lstrip("/"), local_parent(current())
        self._span = telemetry.tracer.start_span(name, parent, SpanKind.CLIENT, self._known)
        found = self._span.get_span_context()
        if found.is_valid:
            pairs = [(TRACEPARENT, traceparent(found))]
            if state := tracestate(found):
                pairs.append((TRACESTATE, state))
            call.carry(CARRIED, pairs)

    def attempted(self, attempt: Attempt, outcome: str) -> None:
        """Note an attempt that the call does not end with."""
        self._tried += 1
        if self._span.is_recording():
            kind = "hedge" if attempt.further else "first" if self._tried == 1 else "retry"
            self._event(attempt, kind, outcome)

    def end(self, error: Exception | None) -> None:
        """Note the call's end; called once."""
        call, self._call = self._call, None
        if call is None:
            return
        status, span = _status(call, error), self._span
        known = {**self._known, "rpc.response.status_code": status}
        if status != "OK":
            known["error.type"] = status
        if span.is_recording():
            span.set_attributes(known)
            span.set_attribute("service.peer.name", call.service)
            self._name_who_answered(call, error)
            if status != "OK":
                failed(span, status, str(error) if error is not None else None)
        seconds = time.perf_counter() - self._began
        self._telemetry.rpc_client.record(seconds, known, otel_context.get_current())
        span.end()

    def _name_who_answered(self, call: Attempts, error: Exception | None) -> None:
        attempt = call.attempt
        if attempt is None or error is not None:
            return
        self._span.set_attributes(
            {
                "meshkit.instance.id": attempt.pick.instance.id,
                "network.peer.address": attempt.pick.endpoint.host,
                "network.peer.port": attempt.pick.endpoint.port,
            }
        )
        if self._tried:
            self._event(attempt, "hedge" if attempt.further else "retry", "OK")

    def _event(self, attempt: Attempt, kind: str, outcome: str) -> None:
        self._span.add_event(
            "meshkit.attempt",
            {
                "meshkit.attempt.kind": kind,
                "meshkit.attempt.outcome": outcome,
                "meshkit.attempt.duration": attempt.seconds,
                "meshkit.instance.id": attempt.pick.instance.id,
                "network.peer.address": str(attempt.pick.endpoint),
            },
        )


def _status(call: Attempts, error: Exception | None) -> str:
    """Return the name of the status that the caller gets."""
    code: Any = None
    if isinstance(error, Cancelled):
        return "CANCELLED"
    if isinstance(error, grpc.aio.AioRpcError):
        code = error.code()
    elif error is not None:
        return "UNKNOWN"
    elif call.inner is not None:
        code = finished(call.inner.code())
    return str(getattr(code, "name", "UNKNOWN"))
