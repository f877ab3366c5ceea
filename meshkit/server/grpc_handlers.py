"""What a handler of a gRPC method is wrapped in: our name on its answers, its call's context."""

from __future__ import annotations

import contextvars
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import grpc
import grpc.aio

from meshkit import identity, propagation
from meshkit.context import CallContext, enter, use
from meshkit.errors import CallError, CallTimeout, NoInstances

Metadata = tuple[tuple[str, Any], ...]
Behavior = Callable[[Any, Any], Any]  # gRPC's word for a handler
END: Any = object()
FAILED = (CallError, grpc.aio.AioRpcError)  # an outgoing call has
BUSY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
NO_RETRY: Metadata = ((identity.NO_RETRY, "1"),)

log = logging.getLogger("meshkit.service")


class Names(Protocol):
    """What goes along with every answer.

    Attributes:
        metadata: who answers, and whether it is leaving; changed while calls are under way.
    """

    metadata: Metadata


class NamedContext:
    """The context that a handler gets: whatever it sends with its answer, our name goes along.

    It stands in front of gRPC's own context, which keeps but one set of trailing metadata, the
    one that was set last.

    Attributes:
        call: what the call brought along.
    """

    __slots__ = ("_context", "_names", "_ours", "_theirs", "call")

    def __init__(self, context: Any, names: Names, call: CallContext) -> None:
        self._context = context
        self._names = names
        self._ours = names.metadata
        self._theirs: Metadata = ()
        self.call = call
        self._send()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """See grpc.aio.ServicerContext."""
        self._theirs = tuple(trailing_metadata)
        self._send()

    def trailing_metadata(self) -> Metadata:
        """See grpc.aio.ServicerContext; what the handler has set itself."""
        return self._theirs

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        """See grpc.aio.ServicerContext; to be awaited where that is."""
        self._theirs = tuple(trailing_metadata) or self._theirs
        self._ours = self._names.metadata
        return self._context.abort(code, details, self._all())

    @property
    def too_late(self) -> bool:
        """Whether the deadline has passed before there was time, or a thread, for the call."""
        return self.call.deadline is not None and self.call.deadline <= time.monotonic()

    def refuse(self) -> Any:
        """End a call that is too late; to be awaited where ``abort`` is."""
        code = grpc.StatusCode.DEADLINE_EXCEEDED
        return self.abort(code, "the call's deadline had passed before it was handled")

    def answer(self, error: CallError | grpc.aio.AioRpcError) -> Any:
        """Answer for a handler that let the error of an outgoing call pass, as HTTP handlers do.

        gRPC would say UNKNOWN, with a traceback in the log; it still does when another service
        has answered that something is wrong with the request it got. Callers are told not to
        repeat what had its retries down here. To be awaited where ``abort`` is.
        """
        service = str(error).partition(":")[0] if isinstance(error, CallError) else "a service"
        if isinstance(error, CallTimeout) or _code(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
            code, details = grpc.StatusCode.DEADLINE_EXCEEDED, f"{service} did not answer in time"
        elif isinstance(error, NoInstances) or _code(error) in BUSY:
            code, details = grpc.StatusCode.UNAVAILABLE, f"{service} is not available"
        elif isinstance(error, CallError):
            code, details = grpc.StatusCode.UNAVAILABLE, f"the call to {service} failed"
        else:
            raise error
        log.warning("answering for a failed call: %s", _line(error))
        final = not isinstance(error, CallError) or error.final
        return self.abort(code, details, (*self._theirs, *NO_RETRY) if final else ())

    def finish(self) -> None:
        """Send what we have to say now: since the call came in, we may have begun to drain.

        The answer is there: what the handler has started goes on without the deadline.
        """
        self.call.end()
        if self._ours is not self._names.metadata:
            self._ours = self._names.metadata
            self._send()

    def _send(self) -> None:
        self._context.set_trailing_metadata(self._all())

    def _all(self) -> Metadata:
        return (*self._theirs, *self._ours, (propagation.REQUEST, self.call.request_id))


def _code(error: CallError | grpc.aio.AioRpcError) -> grpc.StatusCode | None:
    """Return what another service has answered; None for what failed by itself."""
    return None if isinstance(error, CallError) else error.code()


def _line(error: CallError | grpc.aio.AioRpcError) -> str:
    if isinstance(error, CallError):
        return str(error)
    return f"answered with {error.code().name}: {error.details() or 'no details'}"


Receive = Callable[[Any], NamedContext]


def wrap(behavior: Behavior, receive: Receive) -> Behavior:
    """Wrap a handler of any of the four forms, async or not, without changing its form.

    Args:
        behavior: the handler.
        receive: makes what it gets as its context out of gRPC's own.
    """
    if inspect.isasyncgenfunction(behavior):
        return _async_generator(behavior, receive)
    if inspect.iscoroutinefunction(behavior):
        return _coroutine(behavior, receive)
    if inspect.isgeneratorfunction(behavior):
        return _generator(behavior, receive)
    return _function(behavior, receive)


def _async_generator(behavior: Behavior, receive: Receive) -> Behavior:
    async def async_generator(request: Any, context: Any) -> AsyncIterator[Any]:
        named = receive(context)
        if named.too_late:
            await named.refuse()
        enter(named.call)  # of the task that gRPC has made for this call
        try:
            async for response in behavior(request, named):
                yield response
        except FAILED as error:
            await named.answer(error)
        named.finish()

    return async_generator


def _coroutine(behavior: Behavior, receive: Receive) -> Behavior:
    async def coroutine(request: Any, context: Any) -> Any:
        named = receive(context)
        if named.too_late:
            await named.refuse()
        enter(named.call)
        try:
            response = await behavior(request, named)
        except FAILED as error:
            await named.answer(error)
        named.finish()
        return response

    return coroutine


def _generator(behavior: Behavior, receive: Receive) -> Behavior:
    def generator(request: Any, context: Any) -> Iterator[Any]:
        named = receive(context)
        if named.too_late:
            named.refuse()
        own = contextvars.copy_context()  # each step may run in another thread
        own.run(enter, named.call)
        responses = behavior(request, named)
        try:
            while (response := own.run(next, responses, END)) is not END:
                yield response
        except FAILED as error:
            named.answer(error)
        named.finish()

    return generator


def _function(behavior: Behavior, receive: Receive) -> Behavior:
    def function(request: Any, context: Any) -> Any:
        named = receive(context)
        if named.too_late:
            named.refuse()
        try:
            with use(named.call):
                response = behavior(request, named)
        except FAILED as error:
            named.answer(error)
        named.finish()
        return response

    return function
