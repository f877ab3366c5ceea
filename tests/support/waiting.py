"""Waiting for something to become true, within a generous limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT = 15.0


def eventually(probe: Callable[[], T], *, within: float = LIMIT, every: float = 0.02) -> T:
    """Return the first true answer of ``probe``; fail when there is none in time."""
    deadline = time.monotonic() + within
    while True:
        if answer := probe():
            return answer
        assert time.monotonic() < deadline, f"not true within {within} s: {probe}"
        time.sleep(every)


async def aeventually(
    probe: Callable[[], Awaitable[T]], *, within: float = LIMIT, every: float = 0.02
) -> T:
    """The same with an async probe."""
    deadline = time.monotonic() + within
    while True:
        if answer := await probe():
            return answer
        assert time.monotonic() < deadline, f"not true within {within} s: {probe}"
        await asyncio.sleep(every)
