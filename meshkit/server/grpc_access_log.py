"""One line for each gRPC call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import unquote

import grpc

from meshkit.server.access_log import AccessLog, entry

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its type stubs only
Behavior = Callable[[Any, Any], Any]
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
QUIET = ("/grpc.health.",)
NewLine = Callable[[Any, Any], "Line"]  # of a serializer and a context


class Watcher(Protocol):
    """What is told of each call; metrics count there."""

    def began(self) -> None:
        """A call begins."""
        ...

    def ended(self, path: str, status: str, seconds: float) -> None:
        """A call has ended."""
        ...


class GrpcAccessLog:
    """Writes a line for each call when its handler ends, however it ends.

    It stands behind what gives each call its context.

    Args:
        lines: False to write none, and only tell the watcher.
        watcher: told of each call too.
    """

    def __init__(self, *, lines: bool = True, watcher: Watcher | None = None) -> None:
        self._lines = lines
        self._watcher = watcher

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Return a handler of the same kind for a method."""
        if method.startswith(QUIET):
            return handler
        return logged(functools.partial(Line, method, self._lines, self._watcher), handler)


def ended_with(context: Any, error: BaseException | None, deadline: float | None) -> str:
    """Return the name of the status that a handler's end comes to.

    Args:
        context: gRPC's own.
        error: what the handler let pass.
        deadline: of the call, on the monotonic clock.
    """
    code = context.code()
    if code:
        return str(getattr(code, "name", code))
    if error is None:
        return "OK"
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "UNKNOWN"
    late = deadline is not None and deadline <= time.monotonic()
    return "DEADLINE_EXCEEDED" if late else "CANCELLED"


class Line:
    """One call, as far as its line has to know it."""

    __slots__ = (
        "_began",
        "_context",
        "_deadline",
        "_lines",
        "_path",
        "_peer",
        "_serialize",
        "_watcher",
        "sent",
    )

    def __init__(
        self,
        path: str,
        lines: bool,  # noqa: FBT001 - made by a partial
        watcher: Watcher | None,
        serialize: Any,
        context: Any,
    ) -> None:
        self._path = path
        self._lines = lines
        self._watcher = watcher
        self._serialize = serialize
        self._context = context
        self._began = time.perf_counter()
        self._deadline = context.call.deadline
        # Not known any more once a call is cancelled.
        self._peer = unquote(context.peer()) if lines else ""
        self.sent = 0
        if watcher is not None:
            watcher.began()

    def serialize(self, message: Any) -> Any:
        """Return a message's bytes, counted; gRPC takes them as they are."""
        if message is None or self._serialize is None:
            return message
        content = self._serialize(message)
        self.sent += len(content)
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        status = ended_with(self._context, error, self._deadline)
        if self._watcher is not None:
            self._watcher.ended(self._path, status, time.perf_counter() - self._began)
        if self._lines:
            self._write(status)

    def _write(self, status: str) -> None:
        context = self._context
        found = entry(
            method="GRPC",
            path=self._path,
            status=status,
            began=self._began,
            sent=self.sent,
            call=context.call,
            deadline=self._deadline,
            peer=self._peer,
            agent=context.call.header("user-agent") or "",
        )
        AccessLog.write(found)


class ThreadContext:
    """The context of a handler that is not async; gRPC's own does not tell the status."""

    __slots__ = ("_code", "_context")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def code(self) -> Any:
        """Return the status that the handler has set, None before."""
        return self._code

    def set_code(self, code: Any) -> None:
        """See grpc.ServicerContext."""
        self._code = code
        self._context.set_code(code)

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> Any:
        """See grpc.ServicerContext."""
        self._code = code
        return self._context.abort(code, details, trailing_metadata)


def logged(new: NewLine, handler: Handler) -> Handler:
    """Return a handler of the same kind that writes lines."""
    for kind in KINDS:
        behavior = getattr(handler, kind)
        if behavior is not None:
            serializer = handler.response_serializer
            if kind.endswith("_stream") and not _yields(behavior):
                # It writes to the context, which has to serialize: those bytes are not counted.
                wrapped = _wrap(new, behavior, None)
            else:
                wrapped, serializer = _wrap(new, behavior, serializer or bytes), None
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            made: Handler = make(wrapped, handler.request_deserializer, serializer)
            return made
    return handler


def _yields(behavior: Behavior) -> bool:
    return inspect.isasyncgenfunction(behavior) or inspect.isgeneratorfunction(behavior)


def _wrap(new: NewLine, behavior: Behavior, serializer: Any) -> Behavior:
    """Wrap a handler of any of the four forms, async or not, without changing its form."""
    if inspect.isasyncgenfunction(behavior):

        async def async_generator(request: Any, context: Any) -> AsyncIterator[Any]:
            with new(serializer, context) as line:
                async for response in behavior(request, context):
                    yield line.serialize(response)

        return async_generator
    if inspect.iscoroutinefunction(behavior):

        async def coroutine(request: Any, context: Any) -> Any:
            with new(serializer, context) as line:
                return line.serialize(await behavior(request, context))

        return coroutine
    if inspect.isgeneratorfunction(behavior):

        def generator(request: Any, context: Any) -> Iterator[Any]:
            context = ThreadContext(context)
            with new(serializer, context) as line:
                for response in behavior(request, context):
                    yield line.serialize(response)

        return generator

    def function(request: Any, context: Any) -> Any:
        context = ThreadContext(context)
        with new(serializer, context) as line:
            return line.serialize(behavior(request, context))

    return function
