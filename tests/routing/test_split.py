"""Shares: exact over time without a key, and one side for each key."""

import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings, strategies as st

from meshkit.discovery.routing.split import Split

KEYS = [f"user-{number}" for number in range(20_000)]

percentages = st.integers(0, 100).map(lambda canary: {"rest": 100 - canary, "canary": canary})
thirds = st.lists(st.integers(0, 100), min_size=2, max_size=2).map(
    lambda cuts: {"a": min(cuts), "b": abs(cuts[1] - cuts[0]), "c": 100 - max(cuts)}
)
two_groups = st.tuples(st.integers(1, 500), st.integers(0, 500)).map(
    lambda pair: {"rest": pair[0], "canary": pair[1]}
)


def windows(split: Split, size: int, count: int) -> list[Counter[str]]:
    calls = [split.next() for _ in range(size + count)]
    return [Counter(islice(calls, start, start + size)) for start in range(count)]


@given(st.one_of(percentages, thirds))
@settings(max_examples=60, deadline=None)
def test_of_any_100_calls_in_a_row_each_group_has_its_percentage(shares: dict[str, int]) -> None:
    for counts in windows(Split(shares, "users"), 100, 110):
        assert all(counts[name] == share for name, share in shares.items()), counts


@given(two_groups)
@settings(max_examples=60, deadline=None)
def test_any_two_shares_are_exact_within_one_over_any_100_calls(shares: dict[str, int]) -> None:
    total = sum(shares.values())
    for counts in windows(Split(shares, "users"), 100, 110):
        for name, share in shares.items():
            assert abs(counts[name] - 100 * share / total) <= 1, (counts, shares)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_many_groups_are_exact_over_each_round_and_nobody_starves(shares: list[int]) -> None:
    named = {str(number): share for number, share in enumerate(shares)}
    for counts in windows(Split(named, "users"), sum(shares), 30):
        assert counts == named


def test_many_callers_that_begin_together_call_the_canary_too() -> None:
    first = Counter(Split({"rest": 95, "canary": 5}, "users").next() for _ in range(4000))
    assert 100 < first["canary"] < 320  # of 200 +- 14


@given(percentages, st.integers(0, 2**64))
def test_a_key_is_always_on_one_side(shares: dict[str, int], number: int) -> None:
    key = f"user-{number}"
    sides = {Split(shares, "users").of(key) for _ in range(3)}
    assert len(sides) == 1
    assert shares[sides.pop()] > 0


@pytest.mark.parametrize("shares", [{"rest": 95, "canary": 5}, {"a": 1, "b": 2, "c": 7}])
def test_keys_are_divided_by_the_shares(shares: dict[str, int]) -> None:
    split = Split(shares, "users")
    counts = Counter(map(split.of, KEYS))
    for name, share in shares.items():
        wanted = len(KEYS) * share / sum(shares.values())
        assert abs(counts[name] - wanted) < 5 * wanted**0.5


@pytest.mark.parametrize("later", [0, 1, 6, 20, 100])
def test_a_share_that_changes_moves_no_other_key(later: int) -> None:
    before = Split({"rest": 95, "canary": 5}, "users")
    after = Split({"rest": 100 - later, "canary": later}, "users")
    moves = Counter((before.of(key), after.of(key)) for key in KEYS)
    wrong = ("canary", "rest") if later > 5 else ("rest", "canary")
    assert moves[wrong] == 0


def test_a_new_group_takes_keys_and_moves_none_between_the_others() -> None:
    before = Split({"a": 50, "b": 50}, "users")
    after = Split({"c": 10, "b": 45, "a": 45}, "users")
    for key in KEYS[:5000]:
        assert after.of(key) in (before.of(key), "c")


def test_services_divide_their_keys_differently() -> None:
    shares = {"rest": 50, "canary": 50}
    one, other = Split(shares, "users"), Split(shares, "orders")
    same = sum(one.of(key) == other.of(key) for key in KEYS[:2000])
    assert 800 < same < 1200


def test_other_processes_agree() -> None:
    code = (
        "from meshkit.discovery.routing.split import Split; "
        "split = Split({'rest': 50, 'canary': 50}, 'users'); "
        "print(''.join(split.of(f'user-{each}')[0] for each in range(100)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    split = Split({"rest": 50, "canary": 50}, "users")
    assert done.stdout.strip() == "".join(split.of(key)[0] for key in KEYS[:100])
