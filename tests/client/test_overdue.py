"""Attempts that take too long are told so, in time and once."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from meshkit.client.overdue import Overdue


class Attempt:
    def __init__(self, told: list[Attempt]) -> None:
        self.due = 0.0
        self.over = False
        self._told = told

    def overdue(self) -> None:
        assert not self.over
        assert time.monotonic() >= self.due
        self._told.append(self)


async def eventually(told: list[Attempt], count: int) -> None:
    async with asyncio.timeout(20):
        while len(told) < count:
            await asyncio.sleep(0.005)


async def test_each_is_told_once_in_order() -> None:
    told: list[Attempt] = []
    queue = Overdue()
    attempts = [Attempt(told) for _ in range(20)]
    for number, each in enumerate(attempts):
        queue.add(each, time.monotonic() + 0.01 + number / 1000)
    await eventually(told, 20)
    await asyncio.sleep(0.05)
    assert told == attempts
    assert len(queue) == 0


async def test_those_that_ended_are_not() -> None:
    told: list[Attempt] = []
    queue = Overdue()
    attempts = [Attempt(told) for _ in range(20)]
    for each in attempts:
        queue.add(each, time.monotonic() + 0.02)
    for each in attempts[::2]:
        queue.forget(each)
    await eventually(told, 10)
    assert told == attempts[1::2]


async def test_nothing_is_kept_of_those_that_ended() -> None:
    queue = Overdue()
    told: list[Attempt] = []
    slow = Attempt(told)
    queue.add(slow, time.monotonic() + 60)
    for _ in range(1_000):
        quick = Attempt(told)
        queue.add(quick, time.monotonic() + 60)
        queue.forget(quick)
    assert len(queue) == 1_001  # behind the slow one
    queue.forget(slow)
    assert len(queue) == 0


async def test_one_timer_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers = []
    call_later = loop.call_later

    def counting(*arguments: object) -> asyncio.TimerHandle:
        timers.append(arguments)
        return call_later(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_later", counting)
    queue = Overdue()
    told: list[Attempt] = []
    for _ in range(1_000):
        attempt = Attempt(told)
        queue.add(attempt, time.monotonic() + 30)
        queue.forget(attempt)
    assert len(timers) == 1


async def test_a_shorter_wait_does_not_overtake() -> None:
    told: list[Attempt] = []
    queue = Overdue()
    long, short = Attempt(told), Attempt(told)
    queue.add(long, time.monotonic() + 0.05)
    queue.add(short, time.monotonic() + 0.01)
    await eventually(told, 2)
    assert told == [long, short]


async def test_a_loop_that_was_busy_reads_what_arrived_before_it_judges() -> None:
    told: list[Attempt] = []
    queue = Overdue()
    loop = asyncio.get_running_loop()
    answered, silent = Attempt(told), Attempt(told)
    queue.add(answered, time.monotonic() + 0.02)
    queue.add(silent, time.monotonic() + 0.02)
    reader, writer = socket.socketpair()
    with reader, writer:
        loop.add_reader(reader, queue.forget, answered)
        await asyncio.sleep(0)
        writer.send(b"the answer")
        time.sleep(0.2)
        await eventually(told, 1)
        loop.remove_reader(reader)
    await asyncio.sleep(0.05)
    assert told == [silent]
