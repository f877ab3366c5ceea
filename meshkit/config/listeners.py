"""Telling others of changes: one after the other, and never holding up who tells."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from meshkit.places import place

V = TypeVar("V")

log = logging.getLogger("meshkit.config")

Listener = Callable[[V, V], Awaitable[None] | None]


class Listeners(Generic[V]):
    """Calls functions, plain ones or coroutines, with the old and the new value.

    Each hears of every change once all have heard of the one before; changes that come meanwhile
    are told together, from the last that was told to the newest. What is equal is no change.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener[V]] = []
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._told: V | None = None
        self._newest: V | None = None

    def add(self, listener: Listener[V]) -> None:
        """Tell this one too, of the next change."""
        self._listeners.append(listener)

    def show(self, value: V) -> None:
        """Have it told, once begun. The first value is what the first change will be from."""
        if self._told is None:
            self._told = value
        self._newest = value
        self._changed.set()

    def begin(self) -> None:
        """Tell of changes from the first value on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="meshkit-config-listeners")

    async def aclose(self) -> None:
        """End it; one that is running is cancelled. Closing twice is safe."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            old, new = self._told, self._newest
            if old is None or new is None or old == new:
                continue
            self._told = new
            for listener in tuple(self._listeners):
                await self._call(listener, old, new)

    async def _call(self, listener: Listener[V], old: V, new: V) -> None:
        try:
            result = listener(old, new)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # the user's own; the others must hear of the change too
            name = getattr(listener, "__qualname__", repr(listener))
            log.debug("%s failed", name, exc_info=True)
            log.error("on_change %s failed: %s%s", name, one_line(error), place(error))  # noqa: TRY400


def one_line(error: Exception) -> str:
    """Return the error's kind and text."""
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
