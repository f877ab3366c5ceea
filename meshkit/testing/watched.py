"""Wait for what a watch yields, with a time limit and without ending the watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

Value = TypeVar("Value")


class Watched(Generic[Value]):
    """A watch under test, an async context manager that closes it.

    Cancelling ``anext()`` ends a generator; here one stays pending across time limits.

    Args:
        watch: what ``registry.watch(...)`` or ``registry.watch_services()`` returned.
        patience: seconds until a value is missed.
    """

    def __init__(self, watch: AsyncGenerator[Value, None], *, patience: float = 10.0) -> None:
        self._watch = watch
        self._patience = patience
        self._pending: asyncio.Task[Value] | None = None

    async def next(self) -> Value:
        """Return the next value. Raises AssertionError when it does not come in time."""
        value = self._take(await self._arrived(self._patience))
        if value is None:
            raise AssertionError(f"the watch yielded nothing within {self._patience:g} s")
        return value

    async def until(self, holds: Callable[[Value], bool]) -> Value:
        """Return the first value of which it holds; AssertionError names the last one seen."""
        last: object = "nothing"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while True:
                    value = await self.next()
                    if holds(value):
                        return value
                    last = value
        raise AssertionError(f"not seen within {self._patience:g} s; the last was {last}")

    async def nothing(self, *, seconds: float) -> None:
        """Raise AssertionError when a value comes within this time."""
        value = self._take(await self._arrived(seconds))
        if value is not None:
            raise AssertionError(f"nothing has changed, but the watch yielded {value}")

    async def aclose(self) -> None:
        """End the watch."""
        if self._pending:
            self._pending.cancel()
            await asyncio.wait({self._pending})
        await self._watch.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _arrived(self, seconds: float) -> bool:
        if self._pending is None:
            self._pending = asyncio.ensure_future(_next(self._watch))
        done, _ = await asyncio.wait({self._pending}, timeout=seconds)
        return bool(done)

    def _take(self, arrived: bool) -> Value | None:  # noqa: FBT001
        if not arrived or self._pending is None:
            return None
        task, self._pending = self._pending, None
        return task.result()


async def _next(watch: AsyncGenerator[Value, None]) -> Value:
    return await anext(watch)
