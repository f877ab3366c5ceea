"""SIGTERM, SIGINT and SIGHUP: the first asks for an orderly stop, a second one ends at once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Some senders, timeout(1) among them, signal the process and then its whole group.
ECHO = 0.2

log = logging.getLogger("meshkit")


class StopSignals:
    """Catches the signals while it is open; main thread only.

    The handlers are not the event loop's: a loop that is stuck would neither hear the second
    signal nor keep to the limit.

    Args:
        limit: seconds from the first signal after which the process is ended by force.

    Attributes:
        received: the first signal, None so far.
    """

    def __init__(self, limit: float) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._limit = limit
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._overdue: threading.Timer | None = None
        self._before: dict[int, Any] = {}

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    def __enter__(self) -> Self:
        for number in SIGNALS:
            # nohup and its like ignore the end of the terminal for us.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            if number == self.received and time.monotonic() - self._received_at < ECHO:
                return
            end(number)
        self.received, self._received_at = number, time.monotonic()
        # A daemon: it goes on when all else has ended and something still holds the process.
        self._overdue = threading.Timer(self._limit, self._force, (number,))
        self._overdue.daemon = True
        self._overdue.start()
        self._loop.call_soon_threadsafe(self._asked.set)

    def _force(self, number: int) -> None:
        log.error("not ended %g s after the signal: ending now", self._limit)
        end(number)


def end(number: int) -> None:
    """End the process at once, with the code that shells show for one ended by a signal."""
    os._exit(128 + number)
