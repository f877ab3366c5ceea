"""Client interceptors, as grpc.aio has them: around the whole call, whatever its attempts.

An interceptor sees the call that its caller made. That it may take several instances happens
below it, so that one that counts, signs or logs calls does so once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any, cast

import grpc
import grpc.aio

from meshkit.client.grpc.call import MeshCall
from meshkit.errors import ConfigError

KINDS: dict[str, type[grpc.aio.ClientInterceptor]] = {
    "unary_unary": grpc.aio.UnaryUnaryClientInterceptor,
    "unary_stream": grpc.aio.UnaryStreamClientInterceptor,
    "stream_unary": grpc.aio.StreamUnaryClientInterceptor,
    "stream_stream": grpc.aio.StreamStreamClientInterceptor,
}

Interceptors = tuple[grpc.aio.ClientInterceptor, ...]
Invoke = Callable[[grpc.aio.ClientCallDetails, Any], MeshCall]
Step = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


def checked(service: str, interceptors: Sequence[Any]) -> Interceptors:
    """Return the interceptors. Raises ConfigError when one is of none of gRPC's four kinds."""
    for each in interceptors:
        if not isinstance(each, tuple(KINDS.values())):
            raise ConfigError(
                f"{service}: {each!r} is no client interceptor: derive its class from "
                "grpc.aio.UnaryUnaryClientInterceptor or one of the other three"
            )
    return tuple(interceptors)


def of_kind(interceptors: Interceptors, kind: str) -> Interceptors:
    """Return those that intercept calls of this kind, in their order."""
    return tuple(each for each in interceptors if isinstance(each, KINDS[kind]))


def chain(interceptors: Interceptors, kind: str, invoke: Invoke) -> Step:
    """Return one step through all interceptors, the first of which is the outermost."""

    async def last(details: grpc.aio.ClientCallDetails, request: Any) -> MeshCall:
        return invoke(details, request)

    step: Step = last
    for each in reversed(interceptors):
        step = functools.partial(getattr(each, f"intercept_{kind}"), step)
    return step


class Intercepted(grpc.aio.Call):
    """A call on its way through interceptors, and then what they made of it.

    Args:
        step: through all interceptors.
        details: of the call, as its caller made it.
        request: one message, or an iterator of them.
    """

    def __init__(self, step: Step, details: grpc.aio.ClientCallDetails, request: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(_run(step, details, request))
        self._task.add_done_callback(_heard)

    def _result(self) -> Any:
        """Return what came of it, None while it is with the interceptors or if they failed."""
        ended = self._task.done() and not self._task.cancelled()
        return self._task.result() if ended and self._task.exception() is None else None

    def _inner(self) -> Any:
        """Return the call that the interceptors made; None when there is none."""
        result = self._result()
        return result if isinstance(result, grpc.aio.Call) else None

    def cancel(self) -> bool:
        """See grpc.aio.RpcContext."""
        if not self._task.done():
            return self._task.cancel()
        inner = self._inner()
        return bool(inner is not None and inner.cancel())

    def cancelled(self) -> bool:
        """See grpc.aio.RpcContext."""
        inner = self._inner()
        return self._task.cancelled() or bool(inner is not None and inner.cancelled())

    def done(self) -> bool:
        """See grpc.aio.RpcContext."""
        inner = self._inner()
        return self._task.done() and (inner is None or inner.done())

    def time_remaining(self) -> float | None:
        """See grpc.aio.RpcContext; None while it is with the interceptors."""
        inner = self._inner()
        return None if inner is None else inner.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """See grpc.aio.RpcContext."""

        def passed(_task: object) -> None:
            inner = self._inner()
            if inner is None:
                callback(self)
            else:
                inner.add_done_callback(lambda _call: callback(self))

        self._task.add_done_callback(passed)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """See grpc.aio.Call."""
        metadata: grpc.aio.Metadata = await self._part("initial_metadata", grpc.aio.Metadata())
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """See grpc.aio.Call."""
        metadata: grpc.aio.Metadata = await self._part("trailing_metadata", grpc.aio.Metadata())
        return metadata

    async def code(self) -> grpc.StatusCode:
        """See grpc.aio.Call."""
        code: grpc.StatusCode = await self._part("code", grpc.StatusCode.OK)
        return code

    async def details(self) -> str:
        """See grpc.aio.Call."""
        details: str = await self._part("details", "")
        return details

    async def debug_error_string(self) -> str:
        """Return gRPC's own account of what went wrong."""
        text: str = await self._part("debug_error_string", "")
        return text

    async def wait_for_connection(self) -> None:
        """See grpc.aio.Call."""
        result = await self._task
        if isinstance(result, grpc.aio.Call):
            await result.wait_for_connection()

    async def _part(self, name: str, default: Any) -> Any:
        """Return a part of the status; of an answer that an interceptor made up, the default."""
        try:
            result = await asyncio.shield(self._task)
        except grpc.aio.AioRpcError as error:
            return getattr(error, name)()
        return await getattr(result, name)() if isinstance(result, grpc.aio.Call) else default


class InterceptedResponse(Intercepted):
    """One that is awaited; interceptors return a call, or the response itself."""

    def __await__(self) -> Generator[Any, None, Any]:
        return self._respond().__await__()

    async def _respond(self) -> Any:
        result = await self._task
        if isinstance(result, grpc.aio.Call):
            result = await cast("Awaitable[Any]", result)
        return result


class InterceptedStream(Intercepted):
    """One that is read; interceptors return a call, or an iterator over the responses."""

    _messages: AsyncIterator[Any] | None = None

    async def read(self) -> Any:
        """Return the next message, ``grpc.aio.EOF`` at the end."""
        return await anext(aiter(self), grpc.aio.EOF)

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._iterate()
        return self._messages

    async def _iterate(self) -> AsyncIterator[Any]:
        async for message in await self._task:
            yield message


class InterceptedWriter(Intercepted):
    """One whose messages are written; interceptors see them as an iterator."""

    def __init__(self, step: Step, details: grpc.aio.ClientCallDetails, request: Any) -> None:
        self._written: asyncio.Queue[Any] | None = None
        self._writing = True
        if request is None:
            self._written = asyncio.Queue(maxsize=1)
            request = _feed(self._written)
        super().__init__(step, details, request)

    async def write(self, request: Any) -> None:
        """Send a message.

        Raises:
            grpc.aio.AioRpcError: the call ended with an error.
            asyncio.InvalidStateError: it ended well, or ``done_writing`` was called.
        """
        if not self._writing:
            raise asyncio.InvalidStateError("write() after done_writing()")
        await self._put(request)

    async def done_writing(self) -> None:
        """Say that no more messages follow. Doing it twice is safe."""
        if self._writing and not self.done():
            self._writing = False
            await self._put(grpc.aio.EOF)

    async def _put(self, item: Any) -> None:
        """Hand a message on, unless the call ends before it is taken."""
        if self._written is None:
            raise grpc.aio.UsageError("the call was made with an iterator of its messages")
        call = await self._task
        ended = self._loop.create_task(call.code())
        putting = self._loop.create_task(self._written.put(item))
        try:
            await asyncio.wait({ended, putting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()
            ended.cancel()
        if call.done():
            await call.wait_for_connection()  # raises what the call ended with
            raise asyncio.InvalidStateError("the call is over")


async def _run(step: Step, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
    return await step(details, request)


def _heard(task: asyncio.Task[Any]) -> None:
    """Take note of an error that nobody may wait for, or asyncio would complain of it."""
    if not task.cancelled():
        task.exception()


async def _feed(written: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (message := await written.get()) is not grpc.aio.EOF:
        yield message


class InterceptedUnaryUnary(InterceptedResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response."""


class InterceptedUnaryStream(InterceptedStream, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, a stream of responses."""


class InterceptedStreamUnary(
    InterceptedWriter, InterceptedResponse, grpc.aio.StreamUnaryCall[Any, Any]
):
    """A stream of requests, one response."""


class InterceptedStreamStream(
    InterceptedWriter, InterceptedStream, grpc.aio.StreamStreamCall[Any, Any]
):
    """A stream of requests and one of responses."""
