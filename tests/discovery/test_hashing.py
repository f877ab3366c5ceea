"""Consistent hashing: one key, one instance, for all callers; few keys move; nobody is flooded."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Collection

import pytest

from meshkit.discovery.balancing import Candidate, ConsistentHash, Outcome
from meshkit.discovery.balancing.hashing import BOUND, BOUND_LEAST, position
from tests.discovery.values import instance

KEYS = [f"user-{number}" for number in range(20_000)]


def balancer(numbers: Collection[int], weights: dict[int, float] | None = None) -> ConsistentHash:
    made = ConsistentHash()
    made.update(listed(numbers, weights))
    return made


def listed(numbers: Collection[int], weights: dict[int, float] | None = None) -> list[Candidate]:
    return [Candidate(instance(each), (weights or {}).get(each, 1.0)) for each in numbers]


def owner(made: ConsistentHash, key: str, exclude: Collection[str] = ()) -> str:
    picked = made.pick(exclude, key)
    assert picked is not None
    picked[1](Outcome.OK, 0.01)
    return picked[0].id


def owners(made: ConsistentHash) -> dict[str, str]:
    return {key: owner(made, key) for key in KEYS}


def test_all_callers_agree_whatever_the_order_of_their_lists() -> None:
    assert owners(balancer(range(10))) == owners(balancer([*range(5, 10), *range(5)]))


def test_other_processes_agree() -> None:
    """Python's own hash of a text differs from process to process."""
    code = "from meshkit.discovery.balancing.hashing import position; print(position('user-1'))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) == position("user-1")


@pytest.mark.parametrize("size", [3, 10, 100])
@pytest.mark.parametrize("form", ["{}", "user-{}", "/carts/{:08}/items", "{0:x}{0:x}", "{}@mail"])
def test_keys_are_spread(size: int, form: str) -> None:
    """However alike they are."""
    made = balancer(range(size))
    counts = Counter(owner(made, form.format(number)) for number in range(20_000))
    mean = len(KEYS) / size
    assert len(counts) == size
    assert max(counts.values()) < 1.6 * mean
    assert min(counts.values()) > 0.5 * mean


def test_keys_follow_the_weights() -> None:
    counts = Counter(owners(balancer(range(10), {3: 5.0})).values())
    assert 4 / 14 < counts[instance(3).id] / len(KEYS) < 6 / 14


def test_only_the_keys_of_who_leaves_move() -> None:
    made = balancer(range(10))
    before = owners(made)
    made.update(listed([0, 1, 2, 4, 5, 6, 7, 8, 9]))
    after = owners(made)
    for key in KEYS:
        assert after[key] == before[key] or before[key] == instance(3).id
    made.update(listed(range(10)))
    assert owners(made) == before


def test_only_a_share_of_keys_moves_to_who_joins() -> None:
    made = balancer(range(10))
    before = owners(made)
    made.update(listed(range(11)))
    moved = [key for key, now in owners(made).items() if now != before[key]]
    assert all(owner(made, key) == instance(10).id for key in moved)
    assert 0.04 < len(moved) / len(KEYS) < 0.18


def test_a_retry_goes_to_the_same_next_one() -> None:
    made = balancer(range(10))
    first = owner(made, "user-1")
    second = owner(made, "user-1", {first})
    assert second != first
    assert {owner(made, "user-1", {first}) for _ in range(10)} == {second}


def test_a_hot_key_does_not_flood_its_instance() -> None:
    """Nobody has more than its bound under way, whatever the key."""
    made = balancer(range(10))
    counts: Counter[str] = Counter()
    for total in range(1, 501):
        picked = made.pick((), "the-same")
        assert picked is not None
        counts[picked[0].id] += 1
        bound = max(math.ceil(BOUND * total / 10), BOUND_LEAST)
        assert max(counts.values()) <= bound
    assert len(counts) == 10 - 2  # as few as the bound allows


def test_a_hung_instance_passes_its_keys_on_and_gets_them_back() -> None:
    made = balancer(range(3))
    first = owner(made, "user-1")
    pending = []
    for _ in range(50):
        picked = made.pick((), "user-1")
        assert picked is not None
        if picked[0].id == first:
            pending.append(picked[1])  # never answers
        else:
            picked[1](Outcome.OK, 0.01)
    assert len(pending) == BOUND_LEAST
    for done in pending:
        done(Outcome.TIMEOUT, 10)
    assert owner(made, "user-1") == first


def test_when_all_are_full_a_call_still_goes_somewhere() -> None:
    made = balancer(range(2))
    for _ in range(100):
        assert made.pick((), "a") is not None
    assert owner(made, "a", {instance(0).id}) == instance(1).id


@pytest.mark.parametrize("key", ["", "ключ", "\ud800", "x" * 100_000])
def test_any_text_is_a_key(key: str) -> None:
    made = balancer(range(3))
    assert owner(made, key) == owner(made, key)
