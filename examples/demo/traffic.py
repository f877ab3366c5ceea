"""The demo's calls, and what became of each of them."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from typing import Any

from meshkit import HttpClient

USERS = 100  # those that every instance of the users example is seeded with
TRANSPORTS = ("http", "grpc")
UNDER_WAY = 50  # calls at most at the same time
ARREARS = 0.5  # seconds of calls that are made up for after a delay


@dataclasses.dataclass(slots=True)
class Tally:
    """Counts of calls.

    Attributes:
        issued: calls that were made.
        failed: calls that raised, or were not answered with the right quote.
        retried_by: attempts on another instance that hid a failure, by who made them: the demo
            itself ("demo") or an instance of orders (its id).
        by_instance: right answers by the id of the instance, of orders and of users alike.
        by_transport: right answers by the transport between orders and users.
        latencies: seconds of each right answer.
        first_answer: instance id to time.monotonic() of its first one.
        errors: what went wrong, and how often.
    """

    issued: int = 0
    failed: int = 0
    retried_by: Counter[str] = dataclasses.field(default_factory=Counter)
    by_instance: Counter[str] = dataclasses.field(default_factory=Counter)
    by_transport: Counter[str] = dataclasses.field(default_factory=Counter)
    latencies: list[float] = dataclasses.field(default_factory=list)
    first_answer: dict[str, float] = dataclasses.field(default_factory=dict)
    errors: Counter[str] = dataclasses.field(default_factory=Counter)

    @property
    def answered(self) -> int:
        return len(self.latencies)

    @property
    def retried(self) -> int:
        return self.retried_by.total()

    def percentile(self, percent: int) -> float:
        """Return the latency in ms that ``percent`` of the answers stay below; 0 without any."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[len(ordered) * percent // 100] if ordered else 0.0

    def count_answer(self, seconds: float, transport: str, *instances: str) -> None:
        self.latencies.append(seconds)
        self.by_transport[transport] += 1
        for instance in instances:
            self.by_instance[instance] += 1
            self.first_answer.setdefault(instance, time.monotonic())

    def count_failure(self, reason: str) -> None:
        self.failed += 1
        self.errors[reason] += 1


class Traffic:
    """Asks orders for quotes at a steady rate; orders asks users, by HTTP and gRPC in turn.

    A call is made at its time whether or not earlier ones have ended, so that a slow instance
    can't hide by being called less; only with many under way the next one waits, so that a
    machine too busy for the rate makes the demo slower instead of drowning it.
    """

    def __init__(self, orders: HttpClient, orders_in_turn: HttpClient, *, rate: float) -> None:
        self.tally = Tally()
        self._orders = orders
        self._orders_in_turn = orders_in_turn
        self._rate = rate
        self._stop = asyncio.Event()
        self._room = asyncio.Semaphore(UNDER_WAY)

    def stop(self) -> None:
        """Make no more calls. Those under way are still answered, and counted."""
        self._stop.set()

    async def warm_up(self, calls: int) -> None:
        """Make the first calls, one after another: they open connections and load code."""
        for _ in range(calls):
            await self._call()

    async def run(self) -> None:
        """Call until :meth:`stop`; return when the last call has ended."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as calls:
            while not self._stop.is_set():
                await self._room.acquire()
                calls.create_task(self._call()).add_done_callback(lambda _: self._room.release())
                due = max(due + 1 / self._rate, time.monotonic() - ARREARS)
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def read_retries(self) -> str:
        """Ask one instance of orders for its retries so far; return its id."""
        answer = (await self._orders_in_turn.get("/stats")).raise_for_status()
        stats: dict[str, dict[str, int]] = answer.json()
        self.tally.retried_by[answer.instance.id] = sum(stats[via]["retried"] for via in TRANSPORTS)
        return answer.instance.id

    async def _call(self) -> None:
        began = time.monotonic()
        number = self.tally.issued
        self.tally.issued += 1
        user_id = 1 + number % USERS
        transport = TRANSPORTS[number % len(TRANSPORTS)]
        try:
            answer = await self._orders.get(f"/quote/{user_id}", params={"via": transport})
            quote: dict[str, Any] = answer.json() if answer.is_success else {}
        except Exception as error:  # noqa: BLE001 - whatever it is, this call is lost
            self.tally.count_failure(f"{type(error).__name__}: {error}")
            return
        if not answer.is_success:
            self.tally.count_failure(f"{answer.status_code}: {answer.text}")
        elif quote["user_name"] != f"User {user_id}":
            self.tally.count_failure(f"wrong answer for user {user_id}: {quote}")
        else:
            seconds = time.monotonic() - began
            self.tally.retried_by["demo"] += answer.attempts - 1
            self.tally.count_answer(seconds, transport, answer.instance.id, quote["users_instance"])
