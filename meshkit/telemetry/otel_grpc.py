"""A span and a duration for each gRPC call that is handled."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import Token
from typing import Any, Self

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from meshkit.server.grpc_access_log import ThreadContext, ended_with
from meshkit.server.grpc_handlers import Behavior
from meshkit.telemetry.otel_spans import Telemetry, enter_span, failed, remote_parent

# Statuses that are the server's fault, as the conventions have it.
FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


def rpc_attributes(path: str) -> dict[str, Any]:
    """Return what is known of a method in advance."""
    return {"rpc.system.name": "grpc", "rpc.method": path.lstrip("/")}


class RpcSpan:
    """One call.

    Args:
        telemetry: makes the span.
        path: of the method.
        context: what the handler gets; see :class:`~meshkit.server.grpc_handlers.NamedContext`.
        lent: the thread belongs to nobody, and has to be left as it was found.
    """

    __slots__ = (
        "_began",
        "_context",
        "_deadline",
        "_known",
        "_lent",
        "_span",
        "_telemetry",
        "_token",
    )

    def __init__(
        self, telemetry: Telemetry, path: str, context: Any, *, lent: bool = False
    ) -> None:
        self._telemetry = telemetry
        self._context = context
        self._lent = lent
        self._known = rpc_attributes(path)
        self._deadline = context.call.deadline
        self._token: Token[Context] | None = None
        self._began = time.perf_counter()
        name, parent = path.lstrip("/"), remote_parent(context.call)
        self._span = telemetry.tracer.start_span(name, parent, SpanKind.SERVER, self._known)

    def __enter__(self) -> Self:
        inside = enter_span(self._context.call, self._span)
        if inside is not None:
            self._token = otel_context.attach(inside)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        status, span = ended_with(self._context, error, self._deadline), self._span
        known = {**self._known, "rpc.response.status_code": status}
        if status in FAULTS:
            known["error.type"] = status
        if span.is_recording():
            span.set_attributes(known)
            if status in FAULTS:
                failed(span, status)
            if isinstance(error, Exception):
                span.record_exception(error)
        seconds = time.perf_counter() - self._began
        self._telemetry.rpc_server.record(seconds, known, otel_context.get_current())
        span.end()
        if self._lent and self._token is not None:
            otel_context.detach(self._token)


def traced(telemetry: Telemetry, path: str, behavior: Behavior) -> Behavior:
    """Wrap a handler of any of the four forms, async or not, without changing its form."""
    if inspect.isasyncgenfunction(behavior):

        async def async_generator(request: Any, context: Any) -> AsyncIterator[Any]:
            with RpcSpan(telemetry, path, context):
                async for response in behavior(request, context):
                    yield response

        return async_generator
    if inspect.iscoroutinefunction(behavior):

        async def coroutine(request: Any, context: Any) -> Any:
            with RpcSpan(telemetry, path, context):
                return await behavior(request, context)

        return coroutine
    if inspect.isgeneratorfunction(behavior):

        def generator(request: Any, context: Any) -> Iterator[Any]:
            context = ThreadContext(context)
            with RpcSpan(telemetry, path, context):  # each step runs in the call's own context
                yield from behavior(request, context)

        return generator

    def function(request: Any, context: Any) -> Any:
        context = ThreadContext(context)
        with RpcSpan(telemetry, path, context, lent=True):
            return behavior(request, context)

    return function
