"""Calls orders at a steady rate, and says every second what came of it, as one JSON line.

Every call is idempotent, and is asked to be right: the quote names the user it was for. A call is
made at its time whether or not earlier ones have ended. SIGTERM ends it: calls under way are
answered, and the last line is the tally. Settings: MESHKIT_REGISTRY, LOAD_RATE (calls a second).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter, deque

from meshkit import HttpClient, Mesh, MeshError

USERS = 100  # those that every instance of users is seeded with
TRANSPORTS = ("http", "grpc")  # between orders and users, in turn
TIMEOUT = 30.0  # seconds; a call that is slow on a busy machine is not a lost one
UNDER_WAY = 50  # calls at most at the same time


class Load:
    """The calls, and the tally of them."""

    def __init__(self, orders: HttpClient, rate: float) -> None:
        self._orders = orders
        self._rate = rate
        self._began = time.monotonic()
        self._calls = 0
        self._retried = 0
        self._latencies: deque[float] = deque(maxlen=5000)
        self._answers: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Make no more calls."""
        self._stop.set()

    async def run(self) -> None:
        """Call from when the first call can be answered until :meth:`stop`."""
        while not self._stop.is_set() and (problem := await self._problem(0)):
            self.say("waiting", problem=problem)
            await self._pause(0.2)
        self.say("first")
        room = asyncio.Semaphore(UNDER_WAY)
        due = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            telling = calls.create_task(self._tell())
            while not self._stop.is_set():
                await room.acquire()
                calls.create_task(self._call()).add_done_callback(lambda _: room.release())
                due = max(due + 1 / self._rate, time.monotonic() - 1)
                await self._pause(due - time.monotonic())
            telling.cancel()
        self.say("end")

    def say(self, event: str, **more: str) -> None:
        """Print the tally so far."""
        ordered = sorted(self._latencies)
        tally = {
            "event": event,
            "seconds": round(time.monotonic() - self._began, 3),
            "calls": self._calls,
            "answered": self._answers.total(),
            "failed": self._errors.total(),
            "retried": self._retried,
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1) if ordered else None,
            "p99_ms": round(1000 * ordered[len(ordered) * 99 // 100], 1) if ordered else None,
            "errors": dict(self._errors.most_common(5)),
            "answers": dict(self._answers),
        }
        print(json.dumps(tally | more), flush=True)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.say("tally")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._stop.wait()
        except TimeoutError:
            pass

    async def _call(self) -> None:
        self._calls += 1
        began = time.monotonic()
        if problem := await self._problem(self._calls):
            self._errors[problem] += 1
        else:
            self._latencies.append(time.monotonic() - began)

    async def _problem(self, number: int) -> str:
        """Make one call; return what is wrong with its answer, nothing when it is right."""
        user_id = 1 + number % USERS
        params = {"via": TRANSPORTS[number % len(TRANSPORTS)]}
        try:
            answer = await self._orders.get(f"/quote/{user_id}", params=params)
        except MeshError as error:
            return f"{type(error).__name__}: {error}"
        if not answer.is_success:
            return f"{answer.status_code}: {answer.text}"
        quote = answer.json()
        if quote["user_name"] != f"User {user_id}":
            return f"wrong answer for user {user_id}: {answer.text}"
        self._retried += answer.attempts - 1
        if number:
            self._answers[quote["users_instance"]] += 1
        return ""


async def main() -> None:
    rate = float(os.environ.get("LOAD_RATE", "20"))
    async with Mesh(os.environ["MESHKIT_REGISTRY"], timeout=TIMEOUT) as mesh:
        load = Load(mesh.http("orders"), rate)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, load.stop)
        await load.run()


if __name__ == "__main__":
    asyncio.run(main())
