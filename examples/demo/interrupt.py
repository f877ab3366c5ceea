"""Ctrl-C and SIGTERM at any moment: the clean-up runs to its end, once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Turns SIGINT and SIGTERM into the cancellation of the task that :meth:`run` runs.

    Before and after that there is nothing to clean up, and a signal ends the process at once.
    Further signals are ignored: the clean-up under way takes seconds and must not be cut short.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._caught = 0
        for number in SIGNALS:
            signal.signal(number, self._catch)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run ``main`` to its end. Exits with 130 or 143 when a signal came meanwhile."""
        try:
            return asyncio.run(self._guard(main))
        finally:
            if self._caught:
                # The interpreter's own end takes a while, and before it Python gives the signals
                # back to the kernel, except for those that are ignored.
                for number in SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                raise SystemExit(128 + self._caught) from None

    async def _guard(self, main: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        try:
            return await main
        finally:
            self._task = None

    def _catch(self, number: int, _: FrameType | None) -> None:
        if self._caught:
            return
        self._caught = number
        if self._task is None:
            os._exit(128 + number)
        # By way of the loop, which may be asleep and has to be woken.
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)
