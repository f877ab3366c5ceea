"""More calls than a service can answer, from callers who wait for a second each."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable

DEADLINE = 1.0

Call = Callable[[], Awaitable[str]]


async def offer(call: Call, *, rate: float, seconds: float) -> collections.Counter[str]:
    """Start ``rate`` calls a second, whatever became of the earlier ones; count what they return.

    One that has not returned within a second counts as ``late``, one that fails by the name of
    its error.
    """
    outcomes: collections.Counter[str] = collections.Counter()

    async def one() -> None:
        try:
            outcomes[await asyncio.wait_for(call(), DEADLINE)] += 1
        except TimeoutError:
            outcomes["late"] += 1
        except Exception as error:
            outcomes[type(error).__name__] += 1

    began = time.monotonic()
    async with asyncio.TaskGroup() as calls:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            calls.create_task(one())
    return outcomes
