"""Blocking queries: list, then wait for an index that is higher than the last one.

https://developer.hashicorp.com/consul/api-docs/features/blocking
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

# Short enough to bound what a lost server can hide, long enough to cost nothing.
WAIT = 30.0
JITTER = 0.1
# Of a service that changes all the time, this many lists a second are new enough.
RATE = 20.0
BURST = 20
# A watch on a service that never existed wakes at each change of any service: four times rarer.
NOTHING_NEW = 4

T = TypeVar("T")
# Takes an index (None: answer at once) and a wait as Consul writes it; returns the answer's
# index and content.
Query = Callable[[int | None, str], Awaitable[tuple[str, T]]]


async def follow(
    query: Query[T], *, rate: float = RATE, patience: float = WAIT
) -> AsyncGenerator[T, None]:
    """Yield what ``query`` answers, at once and then each time its index moves, for ever.

    At most one query is under way, and ``rate`` of them a second for as long as it lasts; fewer
    while they tell nothing new. Each waits for up to ``patience`` seconds. Errors end it: the next
    one starts again from a list.
    """
    index, pace = 0, Pace(rate=rate, burst=BURST)
    seen: T | None = None
    while True:
        answered, content = await query(index or None, wait(patience))
        yield content
        await pace.turn(1 if content != seen else NOTHING_NEW)
        seen, index = content, following(index, int(answered))


def following(index: int, answered: int) -> int:
    """Return the index to wait for next; 0 means to list at once.

    An index that went back belongs to another life of the server: to wait for the old one would
    mean to sleep through its changes. 0 would not block at all.
    """
    return 0 if answered < index else max(answered, 1)


def wait(patience: float = WAIT) -> str:
    """Return a wait as Consul takes it, spread so that watches don't all end together."""
    seconds = patience * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return f"{seconds * 1000:.0f}ms"


class Pace:
    """Lets ``burst`` turns through at once and ``rate`` a second for as long as it lasts."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._gap = 1 / rate
        self._slack = burst / rate
        self._due = 0.0

    async def turn(self, turns: int = 1) -> None:
        """Wait until the next turn may be taken, after one that counts as so many."""
        now = time.monotonic()
        self._due = max(self._due, now - self._slack) + turns * self._gap
        if self._due > now:
            await asyncio.sleep(self._due - now)
