"""Shedding of gRPC calls: refused with RESOURCE_EXHAUSTED before their handler runs."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from meshkit import identity, propagation
from meshkit.server.shedding.limiter import Limiter

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its type stubs only
Behavior = Callable[[Any, Any], Any]
EXEMPT = ("/grpc.health.", "/grpc.reflection.")
LONGEST = 10.0  # seconds that a call may have waited in gRPC's core
OK = grpc.StatusCode.OK  # looking up members of an enum is slow before Python 3.12
DETAIL = "overloaded, not handled: call another instance, or try again later"
PUSHBACK = ("grpc-retry-pushback-ms", "1000")  # for gRPC's own retries (its proposal A6)


class Shedding:
    """Lets in as many gRPC calls at once as the limiter allows.

    A call counts until its answer begins, as over HTTP. One whose requests are a stream is let in
    or not, but does not count, for its time is the caller's; nor does one with a handler that is
    not async, for gRPC runs those in threads of its own, whose number bounds them.

    It stands behind what gives each call its context.

    Args:
        limiter: of the loop that gRPC runs in.
        instance_id: returns ours, for the refusal.
    """

    def __init__(self, limiter: Limiter, instance_id: Callable[[], str]) -> None:
        self._limiter = limiter
        self._instance_id = instance_id
        # As a stream: it refuses a call of any kind, without waiting for its request.
        self._refusal: Handler = grpc.stream_stream_rpc_method_handler(self._refuse_any)

    def limit(self, method: str, handler: Handler) -> tuple[Handler, Handler | None]:
        """Return what handles the calls of a method.

        And what answers instead when there is no room (see :meth:`has_room`); None when the
        first sees to that.
        """
        if method.startswith(EXEMPT):
            return handler, None
        wrapped = self._wrap(method, handler)
        return wrapped, self._refusal if wrapped is handler else None

    def has_room(self) -> bool:
        """Whether a call that does not count may come in."""
        if self._limiter.acquire() is None:
            return False
        self._limiter.forget()
        return True

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """Return the handler wrapped to count its calls, or itself when they do not count."""
        if (unary := handler.unary_unary) and inspect.iscoroutinefunction(unary):
            return grpc.unary_unary_rpc_method_handler(
                self._count(method, unary), **codecs(handler)
            )
        if (stream := handler.unary_stream) and inspect.isasyncgenfunction(stream):
            return grpc.unary_stream_rpc_method_handler(
                self._count_stream(method, stream), **codecs(handler)
            )
        return handler

    def _count(self, method: str, behavior: Behavior) -> Behavior:
        limiter = self._limiter

        async def counted(request: Any, context: Any) -> Any:
            came = limiter.acquire(arrival(context))
            if came is None:
                await self._refuse(context)
            ok = False
            try:
                response = await behavior(request, context)
                code = context.code()
                ok = not code or code is OK
            finally:
                limiter.release(came, method, ok=ok)
            return response

        return counted

    def _count_stream(self, method: str, behavior: Behavior) -> Behavior:
        limiter = self._limiter

        async def counted(request: Any, context: Any) -> AsyncIterator[Any]:
            came = limiter.acquire(arrival(context))
            if came is None:
                await self._refuse(context)
            counts = True
            try:
                async for response in behavior(request, context):
                    if counts:
                        counts = False
                        limiter.release(came, method)
                    yield response
            finally:
                if counts:
                    limiter.release(came, method, ok=False)

        return counted

    async def _refuse(self, context: Any) -> NoReturn:
        metadata = ((identity.SHED, self._instance_id()), PUSHBACK)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, DETAIL, metadata)
        raise AssertionError  # abort has raised

    async def _refuse_any(self, _requests: object, context: Any) -> None:
        await self._refuse(context)


def codecs(handler: Handler) -> dict[str, Any]:
    """Return what a handler made from another one has to keep."""
    return {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }


def arrival(context: Any) -> float:
    """Return when a call came into this process, in seconds of ``time.perf_counter()``.

    gRPC's core takes in all calls at once and hands them over one by one, when the event loop
    comes round to ask. What the caller wrote of its deadline, less what is left of it, is how
    long that took; from callers who do not write it, nobody knows.
    """
    now = time.perf_counter()
    told = ""
    for key, value in context.call.incoming:
        if key == propagation.DEADLINE:
            told = value  # the last one: a handler may have passed on its own caller's
    left: float | None = context.call.remaining
    if left is None or not told.isdecimal() or len(told) > propagation.DIGITS:
        return now
    waited = int(told) / 1000 - left
    # Who says more than that has waited here means another deadline than gRPC's.
    return now - waited if 0 < waited <= LONGEST else now
