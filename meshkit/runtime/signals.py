"""SIGTERM and SIGINT: the first asks for an orderly stop, the second ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Catches the signals while it is open; main thread only.

    Attributes:
        received: the first signal, None so far.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._asked = asyncio.Event()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._caught, number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    def _caught(self, number: signal.Signals) -> None:
        if self.received is not None:
            os._exit(128 + number)  # 130 or 143, as shells show a process ended by a signal
        self.received = number
        self._asked.set()
