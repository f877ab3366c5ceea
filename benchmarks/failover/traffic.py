"""Open-loop traffic: a call every 5 ms, whatever became of those before."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from measure import now

RATE = 200
TIMEOUT = 2.0  # of one call, retries included
Call = Callable[[], Awaitable[str]]  # returns who answered, as a process id


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """One call: when it began and how long it took, by whom it was answered, or its error."""

    began: float
    seconds: float
    who: str
    error: str


class Traffic:
    """Makes calls until told to stop, and remembers each."""

    def __init__(self, call: Call) -> None:
        self.calls: list[Answered] = []
        self._call = call
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Begin calls for so long; return when all have ended."""
        began = now()
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, began + number / RATE - now()))
            task = asyncio.create_task(self._one())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)

    async def _one(self) -> None:
        began, who, error = now(), "", ""
        try:
            async with asyncio.timeout(2 * TIMEOUT):  # none may hang for ever, whatever the client
                who = await self._call()
        except Exception as failure:  # noqa: BLE001 - whatever a client raises
            error = f"{type(failure).__name__}: {failure}"
        self.calls.append(Answered(began, now() - began, who, error))
