"""Waiting for a call whose attempts come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc.aio

from meshkit.client.grpc.errors import Cancelled

Result = TypeVar("Result")


class Awaited:
    """Lets callers do something with the attempt that counts, and notice when another one does."""

    _loop: asyncio.AbstractEventLoop
    _inner: Any = None  # gRPC's own call object, of the attempt that counts
    _over = False
    _error: Exception | None = None
    _waiters: tuple[asyncio.Future[None], ...] = ()

    def cancel(self) -> bool:
        """End the call. False when it has ended already."""
        raise NotImplementedError

    async def over(self) -> None:
        """Wait until the call has ended."""
        while not self._over:
            await self._changed()

    async def _through(self, operation: Callable[[Any], Awaitable[Result]]) -> Result:
        """Do something with the attempt that counts, and again if meanwhile another one does."""
        while True:
            inner = self._inner or await self._current()
            try:
                result = await operation(inner)
            except grpc.aio.AioRpcError as error:
                while inner is self._inner and not self._over:
                    await self._changed()  # what it means may take a moment to be known
                if inner is self._inner:
                    self._raise(error)
            except asyncio.CancelledError:
                if not self._was_beaten(inner):
                    raise
            else:
                if inner is self._inner:
                    return result

    def _was_beaten(self, inner: Any) -> bool:
        """Whether an attempt was cancelled because another one was faster.

        Not so when whoever waits for the call was cancelled itself, in the same moment.
        """
        task = asyncio.current_task()
        return inner is not self._inner and (task is None or not task.cancelling())

    async def _current(self) -> Any:
        """Return gRPC's call object; wait for it while nobody is called."""
        while self._inner is None:
            if self._over:
                self._raise(self._error)
            try:
                await self._changed()
            except asyncio.CancelledError:
                self.cancel()  # whoever stops waiting for a call gives it up, as in gRPC
                raise
        return self._inner

    def _raise(self, error: Exception | None) -> NoReturn:
        """Raise the call's own error, or else this one."""
        error = self._error or error
        assert error is not None
        if isinstance(error, Cancelled):
            raise asyncio.CancelledError
        raise error from error.__cause__

    async def _changed(self) -> None:
        """Wait until an attempt begins or the call ends."""
        waiter = self._loop.create_future()
        self._waiters += (waiter,)
        await waiter

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
