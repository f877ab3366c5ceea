from __future__ import annotations

from hypothesis import given, strategies as st

from meshkit.client.window import SlidingSum
from tests.client.clock import Clock


@given(st.lists(st.tuples(st.floats(0, 15, allow_nan=False), st.integers(-5, 5)), max_size=50))
def test_the_sum_is_that_of_the_last_seconds(steps: list[tuple[float, int]]) -> None:
    """All of the last nine tenths are in it, and nothing that is older than the whole."""
    clock = Clock()
    window = SlidingSum(10.0, clock)
    added: list[tuple[float, int]] = []
    for pause, amount in steps:
        clock.pass_(pause)
        window.add(amount)
        added.append((clock(), amount))
        ages = sorted((clock() - when, each) for when, each in added)
        cuts = {9.0, *(age for age, _ in ages if 9 <= age < 10)}
        assert window.total() in {sum(each for age, each in ages if age <= cut) for cut in cuts}
    clock.pass_(10)
    assert window.total() == 0


def test_clearing() -> None:
    window = SlidingSum(10.0, Clock())
    window.add(3)
    window.clear()
    assert window.total() == 0
