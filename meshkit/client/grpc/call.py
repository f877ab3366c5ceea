"""The call objects that stubs return, one class for each of gRPC's four kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator
from typing import Any

import grpc
import grpc.aio

from meshkit.client.grpc.errors import Cancelled, RpcFailure
from meshkit.client.grpc.guarded import Guarded


class MeshCall(Guarded, grpc.aio.Call):
    """What calls of all kinds offer, as grpc.aio documents it."""

    def cancelled(self) -> bool:
        """See grpc.aio.RpcContext."""
        if not self._over:
            return False
        if self._error is not None:
            return isinstance(self._error, Cancelled)
        return bool(self._inner.cancelled())

    def done(self) -> bool:
        """See grpc.aio.RpcContext."""
        return self._over

    def time_remaining(self) -> float | None:
        """See grpc.aio.RpcContext."""
        left = self._left()
        return None if left is None else max(0.0, left)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """See grpc.aio.RpcContext."""
        if self._over:
            self._loop.call_soon(callback, self)
        else:
            self._callbacks += (callback,)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """See grpc.aio.Call."""
        metadata: grpc.aio.Metadata
        try:
            metadata = await self._through(lambda inner: inner.initial_metadata())
        except RpcFailure as error:
            metadata = error.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """See grpc.aio.Call."""
        metadata: grpc.aio.Metadata = await self._at_end("trailing_metadata")
        return metadata

    async def code(self) -> grpc.StatusCode:
        """See grpc.aio.Call."""
        code: grpc.StatusCode = await self._at_end("code")
        return code

    async def details(self) -> str:
        """See grpc.aio.Call."""
        details: str = await self._at_end("details")
        return details

    async def debug_error_string(self) -> str:
        """Return gRPC's own account of what went wrong."""
        text: str = await self._at_end("debug_error_string")
        return text

    async def wait_for_connection(self) -> None:
        """See grpc.aio.Call."""
        await self._through(lambda inner: inner.wait_for_connection())

    async def _at_end(self, name: str) -> Any:
        """Wait for the call's end; return a part of its status."""
        await self.over()
        if isinstance(self._error, grpc.aio.AioRpcError):
            return getattr(self._error, name)()
        if self._error is not None:
            raise self._error
        return await getattr(self._inner, name)()

    def __repr__(self) -> str:
        state = "ended" if self._over else "under way"
        return f"<{type(self).__name__} {self._channel.service} {self._method.path}: {state}>"


class SingleResponse(MeshCall):
    """A call that is awaited."""

    def __await__(self) -> Generator[Any, None, Any]:
        inner = self._inner
        if inner is not None:
            # What nearly always suffices, without the frames of the coroutines below.
            try:
                response = yield from inner.__await__()
            except grpc.aio.AioRpcError as error:
                if inner is self._inner:
                    self._raise(error)
            except asyncio.CancelledError:
                if not self._was_beaten(inner):
                    raise
            else:
                if inner is self._inner and self._error is None:
                    return response
        return (yield from self._respond().__await__())

    async def _respond(self) -> Any:
        response = await self._through(_itself)
        if self._error is not None:  # answered well, and by the wrong one
            self._raise(self._error)
        return response


class StreamedResponse(MeshCall):
    """A call whose answer is a stream; once its first message is read, it stays where it is."""

    _messages: AsyncIterator[Any] | None = None
    _lateness = "not finished within {:g} s (a stream may need more: timeout=...)"

    async def read(self) -> Any:
        """Return the next message, ``grpc.aio.EOF`` at the end."""
        message = await self._through(_read)
        if message is not grpc.aio.EOF:
            self._replayable = False
        elif self._error is not None:
            self._raise(self._error)
        return message

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._messages is None:
            self._messages = self._iterate()
        return self._messages

    async def _iterate(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


class StreamedRequest(MeshCall):
    """A call whose request is a stream; once a message may have left, it stays where it is."""

    async def write(self, request: Any) -> None:
        """Send a message.

        Raises:
            grpc.aio.AioRpcError: the call ended with an error.
            asyncio.InvalidStateError: it ended well, or ``done_writing`` was called.
        """
        await self._write(lambda inner: inner.write(request))

    async def done_writing(self) -> None:
        """Say that no more messages follow. Doing it twice is safe."""
        await self._write(lambda inner: inner.done_writing())

    async def _write(self, operation: Callable[[Any], Any]) -> None:
        await self._commit()
        try:
            await self._through(operation)
        except asyncio.InvalidStateError:
            # What gRPC raises on a call that is over, whatever ended it.
            if self._over and (error := await self._status_error()) is not None:
                self._raise(error)
            raise

    async def _commit(self) -> None:
        if self._replayable:
            await self.wait_for_connection()
            self._replayable = False

    async def _status_error(self) -> grpc.aio.AioRpcError | None:
        code = await self.code()
        if code is grpc.StatusCode.OK:
            return None
        return grpc.aio.AioRpcError(
            code,
            await self.initial_metadata(),
            await self.trailing_metadata(),
            await self.details(),
        )

    def _argument(self) -> Any:
        return None if self._request is None else self._feed()

    async def _feed(self) -> AsyncIterator[Any]:
        """Yield the caller's messages, from the first one, once there is a connection for them."""
        try:
            # gRPC iterates in a task, so that by now the call for which it does has been made.
            await self._inner.wait_for_connection()
        except grpc.aio.AioRpcError:
            return
        self._replayable = False
        if isinstance(self._request, AsyncIterable):
            async for message in self._request:
                yield message
        else:
            for message in self._request:
                yield message


class UnaryUnaryCall(SingleResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response."""


class UnaryStreamCall(StreamedResponse, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, a stream of responses."""


class StreamUnaryCall(StreamedRequest, SingleResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """A stream of requests, one response."""


class StreamStreamCall(StreamedRequest, StreamedResponse, grpc.aio.StreamStreamCall[Any, Any]):
    """A stream of requests and one of responses."""


def _itself(inner: Any) -> Any:
    return inner


def _read(inner: Any) -> Any:
    return inner.read()
