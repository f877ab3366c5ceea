"""Who answers a gRPC call: on every answer, and against calls that were meant for others.

And for whom: handlers run in the context that the call brought along.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from meshkit import identity, propagation
from meshkit.server.grpc_access_log import GrpcAccessLog
from meshkit.server.grpc_handlers import Metadata, NamedContext, wrap
from meshkit.server.shedding.grpc import Shedding
from meshkit.server.tracing import Traces

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its type stubs only
HEALTH = "/grpc.health."
CARRIED = propagation.NAMES - {propagation.DEADLINE}  # which gRPC tells itself


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """A method's handler, and what stands before it.

    Attributes:
        handler: the service's own.
        wrapped: what handles its calls.
        refusal: what answers them when there is no room; None when ``wrapped`` sees to that.
    """

    handler: Handler
    wrapped: Handler
    refusal: Handler | None


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Adds our identity to every answer's trailing metadata and refuses misdirected calls.

    A refused call has surely not been handled, so that the caller may go elsewhere with it. Every
    other one is handled in its own context; when its deadline passes or its caller gives it up,
    gRPC cancels an async handler (a thread can't be cancelled: what it returns is dropped).

    The one interceptor of a server: each costs a call a coroutine, and what else is to be done is
    a layer around the handler, made once for each method.

    Args:
        baggage: keys of baggage that travel on.
        log: writes or counts the calls; those that are shed too.
        shedding: refuses calls when there are too many.
    """

    def __init__(
        self,
        baggage: Collection[str] = (),
        *,
        log: GrpcAccessLog | None = None,
        shedding: Shedding | None = None,
    ) -> None:
        self._baggage = frozenset(baggage)
        self._log = log
        self._shedding = shedding
        self.instance_id = ""
        self.calls = 0
        self.metadata: Metadata = ()
        self.traces: Traces | None = None
        self._methods: dict[str, Method] = {}
        # As streams: they refuse a call of any kind, without waiting for its request.
        self._refusal: Handler = grpc.stream_stream_rpc_method_handler(self._refuse)
        self._unknown: Handler = grpc.stream_stream_rpc_method_handler(self._not_implemented)

    def add(self, *pairs: tuple[str, str]) -> None:
        """Send these with every answer from now on."""
        self.metadata = (*self.metadata, *pairs)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See grpc.aio.ServerInterceptor."""
        self.calls += 1
        if not self.instance_id and not handler_call_details.method.startswith(HEALTH):
            return self._refusal  # not before on_start has run
        for key, value in handler_call_details.invocation_metadata:
            if key == identity.TARGET and value != self.instance_id:
                return self._refusal
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._unknown
        method = str(handler_call_details.method)
        known = self._methods.get(method)
        if known is None or known.handler is not handler:
            known = self._methods[method] = self._prepare(method, handler)
        if known.refusal is not None and self._shedding and not self._shedding.has_room():
            return known.refusal
        return known.wrapped

    def _prepare(self, method: str, handler: Handler) -> Method:
        wrapped, refusal = handler, None
        if self._shedding is not None:
            wrapped, refusal = self._shedding.limit(method, handler)
        return Method(
            handler,
            self._wrap(method, wrapped),
            None if refusal is None else self._wrap(method, refusal),
        )

    async def _refuse(self, _requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        metadata = (*self.metadata, (identity.MISDIRECTED, "1"))
        message = f"this is {self.instance_id}, another instance was meant"
        if not self.instance_id:
            message = "starting"
        await context.abort(grpc.StatusCode.UNAVAILABLE, message, metadata)

    async def _not_implemented(
        self, _requests: object, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        # As gRPC does it, but named: otherwise the caller would think that somebody else answered.
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!", self.metadata)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if self._log is not None:
            handler = self._log.wrap(method, handler)
        codecs: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behavior = getattr(handler, kind)
            if behavior is not None:
                if self.traces is not None and not method.startswith(HEALTH):
                    behavior = self.traces.servicer(method, behavior)
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                wrapped: Handler = make(wrap(behavior, self._receive), **codecs)
                return wrapped
        return handler

    def _receive(self, context: Any) -> NamedContext:
        """Return what the handler of a call that just came in gets as its context."""
        found: dict[str, str] = {}
        metadata = context.invocation_metadata()
        for key, value in metadata:
            if key in CARRIED:
                found[key] = f"{found[key]},{value}" if key in found else value
        call = propagation.incoming(found, self._baggage, metadata)
        if (left := context.time_remaining()) is not None:
            call.deadline = time.monotonic() + left
        return NamedContext(context, self, call)
