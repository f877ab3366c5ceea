"""Who answers a gRPC call: on every answer, and against calls that were meant for others."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from meshkit import identity

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its type stubs only
HEALTH = "/grpc.health."
Metadata = tuple[tuple[str, Any], ...]


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Adds our identity to every answer's trailing metadata and refuses misdirected calls.

    A refused call has surely not been handled, so that the caller may go elsewhere with it.
    """

    def __init__(self) -> None:
        self.instance_id = ""
        self.calls = 0
        self.metadata: Metadata = ()
        self._wrapped: dict[str, tuple[object, Handler]] = {}
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
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._wrap(handler))
        return known[1]

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

    def _wrap(self, handler: Handler) -> Handler:
        codecs: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            behavior = getattr(handler, kind)
            if behavior is not None:
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                wrapped: Handler = make(self._with_identity(behavior), **codecs)
                return wrapped
        return handler

    def _with_identity(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a handler of any of the four forms, async or not, without changing its form."""
        if inspect.isasyncgenfunction(behavior):

            async def async_generator(request: Any, context: Any) -> AsyncIterator[Any]:
                named = NamedContext(context, self)
                async for response in behavior(request, named):
                    yield response
                named.finish()

            return async_generator
        if inspect.iscoroutinefunction(behavior):

            async def coroutine(request: Any, context: Any) -> Any:
                named = NamedContext(context, self)
                response = await behavior(request, named)
                named.finish()
                return response

            return coroutine
        if inspect.isgeneratorfunction(behavior):

            def generator(request: Any, context: Any) -> Iterator[Any]:
                named = NamedContext(context, self)
                yield from behavior(request, named)
                named.finish()

            return generator

        def function(request: Any, context: Any) -> Any:
            named = NamedContext(context, self)
            response = behavior(request, named)
            named.finish()
            return response

        return function


class NamedContext:
    """The context that a handler gets: whatever it sends with its answer, our name goes along.

    It stands in front of gRPC's own context, which keeps but one set of trailing metadata, the
    one that was set last.
    """

    __slots__ = ("_context", "_interceptor", "_ours", "_theirs")

    def __init__(self, context: Any, interceptor: IdentityInterceptor) -> None:
        self._context = context
        self._interceptor = interceptor
        self._ours = interceptor.metadata
        self._theirs: Metadata = ()
        context.set_trailing_metadata(self._ours)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """See grpc.aio.ServicerContext."""
        self._theirs = tuple(trailing_metadata)
        self._context.set_trailing_metadata((*self._theirs, *self._ours))

    def trailing_metadata(self) -> Metadata:
        """See grpc.aio.ServicerContext; what the handler has set itself."""
        return self._theirs

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        """See grpc.aio.ServicerContext; to be awaited where that is."""
        theirs = tuple(trailing_metadata) or self._theirs
        return self._context.abort(code, details, (*theirs, *self._interceptor.metadata))

    def finish(self) -> None:
        """Send what we have to say now: since the call came in, we may have begun to drain."""
        if self._ours is not self._interceptor.metadata:
            self._context.set_trailing_metadata((*self._theirs, *self._interceptor.metadata))
