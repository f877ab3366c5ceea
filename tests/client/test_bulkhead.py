from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, strategies as st

from meshkit.client.bulkhead import Bulkhead, BulkheadPolicy
from meshkit.client.guards import Guards
from meshkit.errors import BulkheadFull, CallError, ConfigError


async def test_calls_beyond_the_limit_fail_at_once() -> None:
    bulkhead = Bulkhead("users", BulkheadPolicy(concurrent=2))
    await bulkhead.enter()
    assert bulkhead.try_enter()
    with pytest.raises(BulkheadFull) as caught:
        await bulkhead.enter()
    assert str(caught.value) == ("users: not called, as 2 calls are under way (bulkhead)")
    assert isinstance(caught.value, CallError)
    assert (bulkhead.busy, bulkhead.refused) == (2, 1)
    bulkhead.leave()
    await bulkhead.enter()


async def test_some_wait_in_the_order_of_asking() -> None:
    bulkhead = Bulkhead("users", BulkheadPolicy(concurrent=1, queue=2, wait=30))
    await bulkhead.enter()
    order: list[int] = []

    async def call(number: int) -> None:
        await bulkhead.enter()
        order.append(number)

    tasks = [asyncio.create_task(call(number)) for number in range(2)]
    await asyncio.sleep(0)
    assert bulkhead.waiting == 2
    with pytest.raises(BulkheadFull, match="and 2 wait already"):
        await bulkhead.enter()
    for _ in range(3):
        assert not bulkhead.try_enter()
        bulkhead.leave()
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert order == [0, 1]
    assert (bulkhead.busy, bulkhead.waiting) == (0, 0)


@pytest.mark.parametrize(("wait", "limit"), [(0.02, 30.0), (30.0, 0.02)])
async def test_waiting_ends(wait: float, limit: float) -> None:
    bulkhead = Bulkhead("users", BulkheadPolicy(concurrent=1, queue=5, wait=wait))
    await bulkhead.enter()
    with pytest.raises(BulkheadFull, match=r"and none ended within 0\.02 s$"):
        await bulkhead.enter(limit)
    assert bulkhead.waiting == 0
    bulkhead.leave()
    assert bulkhead.try_enter()


@given(st.lists(st.sampled_from(["enter", "leave", "cancel", "turn"]), max_size=80))
def test_no_place_is_lost_or_given_twice(steps: list[str]) -> None:
    async def play() -> None:
        bulkhead = Bulkhead("users", BulkheadPolicy(concurrent=2, queue=3, wait=60))
        inside: list[int] = []
        tasks: list[asyncio.Task[None]] = []

        async def call(number: int) -> None:
            await bulkhead.enter()
            inside.append(number)

        for number, step in enumerate(steps):
            if step == "enter":
                tasks.append(asyncio.create_task(call(number)))
            elif step == "leave" and inside:
                inside.pop()
                bulkhead.leave()
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif step == "turn":
                await asyncio.sleep(0)
            assert len(inside) <= 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert bulkhead.busy == len(inside)
        for _ in inside:
            bulkhead.leave()
        assert (bulkhead.busy, bulkhead.waiting) == (0, 0)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"concurrent": 0}, "concurrent must be at least 1, not 0"),
        ({"concurrent": 1, "queue": -1}, "queue must be at least 0, not -1"),
        ({"concurrent": 1, "wait": 0}, "wait must be more than 0 s, not 0"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^BulkheadPolicy: {words}$"):
        BulkheadPolicy(**wrong)


def test_clients_with_equal_policies_share_one() -> None:
    guards = Guards("users")
    policy = BulkheadPolicy(concurrent=1)
    assert guards.bulkhead(policy) is guards.bulkhead(BulkheadPolicy(concurrent=1))
