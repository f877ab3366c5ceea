"""What the budget allows, whatever happens in whatever order."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, strategies as st

from meshkit.client.budget import RetryBudget
from meshkit.errors import ConfigError
from tests.client.clock import Clock

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 300)),
        st.tuples(st.just("retry"), st.integers(1, 300)),
        st.tuples(st.just("time"), st.floats(0, 25, allow_nan=False)),
    ),
    max_size=60,
)


@given(
    steps=STEPS,
    share=st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    floor=st.sampled_from([0.0, 0.5, 10.0]),
    window=st.sampled_from([1.0, 10.0]),
)
def test_further_attempts_never_exceed_share_and_floor(
    steps: list[tuple[str, float]], share: float, floor: float, window: float
) -> None:
    clock = Clock()
    budget = RetryBudget(share=share, floor=floor, window=window, clock=clock)
    began, calls, retries, refused = clock(), 0, 0, 0
    for step, amount in steps:
        if step == "time":
            clock.pass_(amount)
        for _ in range(int(amount) if step != "time" else 0):
            if step == "call":
                budget.deposit()
                calls += 1
            elif budget.withdraw():
                retries += 1
            else:
                refused += 1
        elapsed = clock() - began
        assert retries <= share * calls + floor * (elapsed + window) + 1e-6
        assert budget.left >= 0
    assert budget.refused == refused


@given(calls=st.integers(0, 500), seconds=st.floats(0, 100))
def test_what_is_said_to_be_left_can_be_used_and_no_more(calls: int, seconds: float) -> None:
    clock = Clock()
    budget = RetryBudget(floor=1.0, clock=clock)
    for _ in range(calls):
        budget.deposit()
    clock.pass_(seconds)
    left = int(budget.left)
    assert [budget.withdraw() for _ in range(left + 1)] == [True] * left + [False]


@given(st.integers(1, 50))
def test_steady_failure_is_retried_at_the_share_for_ever(per_second: int) -> None:
    clock = Clock()
    budget = RetryBudget(share=0.2, floor=0.0, clock=clock)
    retries = 0
    for _ in range(120):
        for _ in range(per_second):
            budget.deposit()
            retries += budget.withdraw()
            clock.pass_(1 / per_second)
    assert retries >= 0.2 * 120 * per_second * 0.9 - 1
    assert retries <= 0.2 * 120 * per_second


def test_a_service_that_is_called_rarely_can_be_retried() -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    assert budget.left == 100
    assert all(budget.withdraw() for _ in range(100))
    assert not budget.withdraw()
    clock.pass_(9)
    budget.deposit()
    assert budget.left == pytest.approx(0.2)
    clock.pass_(1)
    assert budget.left == pytest.approx(100.2)


def test_a_token_can_be_put_back() -> None:
    budget = RetryBudget(floor=0.1, clock=Clock())
    assert budget.withdraw()
    assert not budget.withdraw()
    budget.give_back()
    assert budget.withdraw()


def test_tokens_expire() -> None:
    clock = Clock()
    budget = RetryBudget(floor=0.0, clock=clock)
    for _ in range(50):
        budget.deposit()
    assert budget.left == pytest.approx(10)
    clock.pass_(9)
    assert budget.left == pytest.approx(10)
    clock.pass_(1)
    assert budget.left == 0
    clock.pass_(1e6)
    assert not budget.withdraw()


def test_no_memory_is_used_by_calls() -> None:
    budget = RetryBudget()
    budget.deposit()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10_000):
            budget.deposit()
            budget.withdraw()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 2_000


@pytest.mark.parametrize(
    ("share", "floor", "window"), [(-0.1, 1, 1), (1.1, 1, 1), (0.2, -1, 1), (0.2, 1, 0)]
)
def test_nonsense_is_refused(share: float, floor: float, window: float) -> None:
    with pytest.raises(ConfigError, match=r"^RetryBudget: share must be 0 to 1, floor at least 0"):
        RetryBudget(share=share, floor=floor, window=window)
