"""How spans of OpenTelemetry and the context that travels with calls are made of each other.

Names and attributes follow the semantic conventions for HTTP (stable) and RPC:
https://opentelemetry.io/docs/specs/semconv/http/ and https://opentelemetry.io/docs/specs/semconv/rpc/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import baggage, context as otel_context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from meshkit.context import CallContext
from meshkit.server.answer import ASGIApp

if TYPE_CHECKING:
    from meshkit.client.exchange import Exchange
    from meshkit.client.grpc.attempts import Attempts
    from meshkit.client.tracing import Carries
    from meshkit.server.grpc_handlers import Behavior

NAME = "meshkit"
# Seconds, as the conventions advise for all four durations.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
NOTHING = Context()


class Telemetry:
    """Makes the spans and metrics of one service; see :class:`~meshkit.client.tracing.Tracing`.

    Attributes:
        tracer: makes the spans.
        http_server, http_client, rpc_server, rpc_client: durations in seconds.
    """

    def __init__(self) -> None:
        self.tracer = trace.get_tracer(NAME)
        meter = metrics.get_meter(NAME)

        def durations(name: str) -> Histogram:
            return meter.create_histogram(
                name, unit="s", explicit_bucket_boundaries_advisory=BUCKETS
            )

        self.http_server = durations("http.server.request.duration")
        self.http_client = durations("http.client.request.duration")
        self.rpc_server = durations("rpc.server.call.duration")
        self.rpc_client = durations("rpc.client.call.duration")

    def asgi(self, app: ASGIApp) -> ASGIApp:
        """Return the application with a span for each HTTP request."""
        from meshkit.telemetry.otel_http import Traced  # noqa: PLC0415 - if it serves HTTP

        return Traced(app, self)

    def servicer(self, path: str, behavior: Behavior) -> Behavior:
        """Return a gRPC handler, of the same form, with a span for each call."""
        from meshkit.telemetry.otel_grpc import traced  # noqa: PLC0415 - if it serves gRPC

        return traced(self, path, behavior)

    def http(self, exchange: Exchange, service: str) -> Carries:
        """See Tracing."""
        from meshkit.telemetry.otel_calls import TracedExchange  # noqa: PLC0415 - if it calls

        return TracedExchange(exchange, service, self)

    def began(self, call: Attempts) -> None:
        """See Tracing."""
        from meshkit.telemetry.otel_grpc_calls import RpcTrace  # noqa: PLC0415 - if it calls gRPC

        call.trace = RpcTrace(self, call)

    def ended(self, call: Attempts, error: Exception | None) -> None:
        """See Tracing."""
        if call.trace is not None:
            call.trace.end(error)


def remote_parent(call: CallContext) -> Context:
    """Return the context that a call came with, for the span of the server that got it."""
    return set_span_in_context(_remote(call), NOTHING) if call.traceparent else NOTHING


def local_parent(call: CallContext) -> Context:
    """Return the context for an outgoing call: the user's own span, or else what came along."""
    current = otel_context.get_current()
    if not call.traceparent or trace.get_current_span(current).get_span_context().is_valid:
        return current
    return set_span_in_context(_remote(call), current)


def _remote(call: CallContext) -> Span:
    text = call.traceparent  # valid, and of version 00
    state = TraceState.from_header([call.tracestate]) if call.tracestate else None
    flags = TraceFlags(int(text[53:], 16))
    ids = int(text[3:35], 16), int(text[36:52], 16)
    return NonRecordingSpan(SpanContext(*ids, is_remote=True, trace_flags=flags, trace_state=state))


def enter_span(call: CallContext, span: Span) -> Context | None:
    """Let a call be handled within a span; return the context for what the handler traces itself.

    None when there is no trace: nobody has set a provider of tracers, and nothing came along.
    """
    if span is INVALID_SPAN or not span.get_span_context().is_valid:
        return None
    found = span.get_span_context()
    call.traceparent, call.tracestate = traceparent(found), tracestate(found)
    call.outgoing = None
    inside = set_span_in_context(span, NOTHING)
    for key, value in call.baggage.items():
        inside = baggage.set_baggage(key, value, inside)
    return inside


def traceparent(found: SpanContext) -> str:
    """Return the header of a span."""
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def tracestate(found: SpanContext) -> str:
    """Return the header that belongs to it, often empty."""
    return found.trace_state.to_header() if found.trace_state else ""


def error_type(error: BaseException) -> str:
    """Return the value of ``error.type`` for an exception."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def failed(span: Span, kind: str, text: str | None = None) -> None:
    """Mark a span as failed."""
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, text)
