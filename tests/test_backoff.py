"""Pauses that grow, stay within their bounds, and begin anew."""

import itertools

from hypothesis import given, settings, strategies as st

from meshkit.backoff import Backoff


@settings(deadline=None)
@given(st.floats(0.01, 5), st.floats(0.01, 60), st.integers(1, 40))
def test_each_pause_is_between_half_and_the_whole_of_a_bound_that_doubles(
    first: float, cap: float, failures: int
) -> None:
    backoff = Backoff(first=first, cap=cap)
    for attempt in range(failures):
        bound = min(cap, first * 2**attempt)
        assert bound / 2 <= backoff.next() <= bound
    backoff.reset()
    assert backoff.next() <= min(cap, first)


def test_there_is_no_last_attempt() -> None:
    backoff = Backoff(cap=1)
    assert all(pause <= 1 for pause in (backoff.next() for _ in range(10_000)))


def test_those_who_failed_together_do_not_come_back_together() -> None:
    pauses = sorted(Backoff(cap=1).next() for _ in range(50))
    assert len(set(pauses)) == 50
    assert max(b - a for a, b in itertools.pairwise(pauses)) < 0.05
