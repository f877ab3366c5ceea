"""What holds for every balancer: by weight, never somebody gone, nobody starved."""

from __future__ import annotations

import random as random_module
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import get_args

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshkit.discovery.balancing import (
    BALANCERS,
    DEFAULT,
    Balancer,
    Candidate,
    ConsistentHash,
    Done,
    LeastOutstanding,
    Outcome,
    PowerOfTwo,
    Random,
    RoundRobin,
    Weighted,
    balancer_factory,
)
from meshkit.discovery.balancing.memory import KEEP, MOST, Memory
from meshkit.discovery.balancing.sampling import alias_table, draw
from meshkit.errors import ConfigError
from meshkit.model import Instance
from meshkit.settings import MeshSettings
from tests.discovery.values import instance

OK = Outcome.OK
NUMBERS = 13
sets = st.sets(st.integers(0, NUMBERS - 1), max_size=10)
weights_of = st.lists(st.integers(1, 20), min_size=1, max_size=12)
names = pytest.mark.parametrize("name", BALANCERS)


def seeded(name: str, seed: int = 1) -> Balancer:
    """Return a balancer whose draws can be repeated."""
    random = random_module.Random(seed).random
    clock = Clock()
    made: dict[str, Callable[[], Balancer]] = {
        "p2c": lambda: PowerOfTwo(random=random, clock=clock),
        "round_robin": RoundRobin,
        "weighted": lambda: Weighted(random=random),
        "least": lambda: LeastOutstanding(random=random),
        "hash": lambda: ConsistentHash(random=random),
        "random": lambda: Random(random=random),
    }
    return made[name]()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def candidates(numbers: Collection[int], weights: Sequence[float] | None = None) -> list[Candidate]:
    listed = sorted(numbers)
    return [
        Candidate(instance(number), weight)
        for number, weight in zip(listed, weights or [1.0] * len(listed), strict=True)
    ]


def ids(numbers: Collection[int]) -> set[str]:
    return {instance(number).id for number in numbers}


def call(balancer: Balancer, exclude: Collection[str] = (), key: str | None = None) -> Instance:
    """Make a call that ends at once and well."""
    picked = balancer.pick(exclude, key)
    assert picked is not None
    picked[1](OK, 0.01)
    return picked[0]


def calls(balancer: Balancer, count: int, exclude: Collection[str] = ()) -> Counter[str]:
    return Counter(call(balancer, exclude).id for _ in range(count))


def test_there_are_these() -> None:
    assert list(BALANCERS) == ["p2c", "round_robin", "weighted", "least", "hash", "random"]
    assert BALANCERS[DEFAULT] is PowerOfTwo
    setting = MeshSettings.model_fields["balancer"]
    assert get_args(setting.annotation) == tuple(BALANCERS)
    assert setting.default == DEFAULT


def test_an_unknown_one_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(
        ConfigError,
        match=r"^no balancer 'fast'; there are: p2c, round_robin, weighted, least, hash, random$",
    ):
        balancer_factory("fast")


def test_users_bring_what_makes_one() -> None:
    assert balancer_factory(RoundRobin) is RoundRobin
    with pytest.raises(ConfigError, match="neither a name"):
        balancer_factory(RoundRobin())  # type: ignore[arg-type]


@names
def test_nobody_is_picked_from_nobody(name: str) -> None:
    balancer = seeded(name)
    assert balancer.pick((), None) is None
    assert balancer.pick({"a"}, "key") is None
    balancer.update(candidates({1}))
    assert call(balancer) == instance(1)
    assert balancer.pick(ids({1}), None) is None
    balancer.update([])
    assert balancer.pick((), None) is None


@names
@settings(deadline=None, max_examples=20)
@given(weights=weights_of, seed=st.integers(0, 99))
def test_each_gets_its_share(name: str, weights: list[int], seed: int) -> None:
    """Within five standard deviations of independent draws, for those that draw."""
    balancer = seeded(name, seed)
    balancer.update(candidates(range(len(weights)), weights))
    counts = calls(balancer, 4000)
    for number, weight in enumerate(weights):
        wanted = weight / sum(weights)
        spread = 5 * (4000 * wanted * (1 - wanted)) ** 0.5
        assert abs(counts[instance(number).id] - 4000 * wanted) <= spread + 2


@settings(deadline=None, max_examples=50)
@given(weights=weights_of, count=st.integers(1, 300))
@pytest.mark.parametrize("name", ["weighted", "round_robin"])
def test_turns_are_exact(name: str, weights: list[int], count: int) -> None:
    """At no moment is anybody a whole call and a half away from its share, by ``weighted``."""
    balancer = seeded(name)
    balancer.update(candidates(range(len(weights)), weights))
    total = sum(weights)
    counts: Counter[str] = Counter()
    for done in range(1, count + 1):
        counts[call(balancer).id] += 1
        if name == "weighted":
            for number, weight in enumerate(weights):
                assert abs(counts[instance(number).id] - done * weight / total) < 2
    if name == "round_robin":
        counts += calls(balancer, total * 20)
        for number, weight in enumerate(weights):
            wanted = counts.total() * weight / total
            assert abs(counts[instance(number).id] - wanted) <= 2 + len(weights)


def test_turns_stay_exact_when_the_list_is_read_again() -> None:
    weights = [1, 2, 4]
    balancer = seeded("weighted")
    counts: Counter[str] = Counter()
    for done in range(1, 701):
        balancer.update(candidates({1, 2, 3}, weights))
        counts[call(balancer).id] += 1
        for number, weight in zip((1, 2, 3), weights, strict=True):
            assert abs(counts[instance(number).id] - done * weight / 7) < 2


@names
@settings(deadline=None, max_examples=30)
@given(numbers=sets, excluded=sets, key=st.none() | st.text(max_size=5))
def test_an_excluded_one_is_never_picked_and_the_others_are(
    name: str, numbers: set[int], excluded: set[int], key: str | None
) -> None:
    balancer = seeded(name)
    balancer.update(candidates(numbers))
    exclude, wanted = ids(excluded), ids(numbers) - ids(excluded)
    if not wanted:
        assert balancer.pick(exclude, key) is None
        return
    found = {call(balancer, exclude, key).id for _ in range(20)}
    assert found <= wanted
    if key is None:
        assert set(calls(balancer, 40 * len(wanted), exclude)) == wanted


@names
@settings(deadline=None, max_examples=20)
@given(churn=st.lists(sets, min_size=1, max_size=30))
def test_nobody_starves_under_constant_churn(name: str, churn: list[set[int]]) -> None:
    balancer = seeded(name)
    picked = 0
    for _ in range(60):
        for numbers in churn:
            balancer.update(candidates(numbers | {5}))
            picked += sum(call(balancer) == instance(5) for _ in range(3))
    assert picked >= len(churn) / 2


@names
@pytest.mark.parametrize("size", [3, 100, 1000])
def test_everybody_is_used_and_evenly(name: str, size: int) -> None:
    balancer = seeded(name)
    balancer.update(candidates(range(size)))
    counts = calls(balancer, 60 * size)
    assert set(counts) == ids(range(size))
    assert max(counts.values()) < 120


@names
def test_outcomes_of_those_who_left_disturb_nobody(name: str) -> None:
    balancer = seeded(name)
    balancer.update(candidates({1, 2, 3}))
    pending = [balancer.pick((), None) for _ in range(9)]
    balancer.update(candidates({2}))
    for picked in pending:
        assert picked is not None
        picked[1](Outcome.FAILED, 0.1)
    assert calls(balancer, 5) == {instance(2).id: 5}
    balancer.update(candidates({1, 2, 3}))
    assert set(calls(balancer, 300)) <= ids({1, 2, 3})


@settings(deadline=None, max_examples=50)
@given(weights=weights_of, seed=st.integers(0, 99))
def test_draws_follow_the_weights(weights: list[int], seed: int) -> None:
    table = alias_table(range(len(weights)), weights)
    random = random_module.Random(seed).random
    counts = Counter(draw(table, random) for _ in range(3000))
    for item, weight in enumerate(weights):
        wanted = weight / sum(weights)
        spread = 5 * (3000 * wanted * (1 - wanted)) ** 0.5
        assert abs(counts[item] - 3000 * wanted) <= spread + 1


def test_a_table_is_exact() -> None:
    """What each item owns of all slots is its weight; no draws needed."""
    table = alias_table("abcd", [1, 2, 3, 994])
    owned: Counter[str] = Counter()
    for index, (cut, one, other) in enumerate(table):
        owned[one] += cut - index  # type: ignore[assignment]
        owned[other] += index + 1 - cut  # type: ignore[assignment]
    for item, weight in zip("abcd", [1, 2, 3, 994], strict=True):
        assert owned[item] == pytest.approx(4 * weight / 1000)


def test_who_left_is_remembered_for_a_while_and_in_limits() -> None:
    clock = Clock()
    memory: Memory[list[str]] = Memory(lambda each: [each], clock)
    (first,) = memory.update(["a"])
    memory.update([])
    clock.now += KEEP - 1
    assert memory.update(["a"])[0] is first
    memory.update([])
    clock.now += KEEP
    memory.update([])
    assert len(memory) == 0
    for number in range(10 * MOST):
        memory.update([str(number)])
    assert len(memory) == MOST + 1


class UnderChurn(RuleBasedStateMachine):
    """Whatever the order of changes, picks and outcomes: only who is listed is picked."""

    name = DEFAULT

    def __init__(self) -> None:
        super().__init__()
        self.balancer = seeded(self.name)
        self.listed: set[int] = set()
        self.taken: list[Done] = []

    @rule(numbers=sets, weights=st.lists(st.floats(0.1, 100), min_size=10, max_size=10))
    def change(self, numbers: set[int], weights: list[float]) -> None:
        self.listed = numbers
        self.balancer.update(candidates(numbers, weights[: len(numbers)]))

    @rule(excluded=sets, key=st.none() | st.sampled_from("abc"))
    def pick(self, excluded: set[int], key: str | None) -> None:
        picked = self.balancer.pick(ids(excluded), key)
        left = self.listed - excluded
        assert (picked is None) == (not left)
        if picked is not None:
            assert picked[0].id in ids(left)
            self.taken.append(picked[1])

    @precondition(lambda self: self.taken)
    @rule(outcome=st.sampled_from(Outcome), seconds=st.floats(0, 100), which=st.integers(0, 1000))
    def done(self, outcome: Outcome, seconds: float, which: int) -> None:
        """Also for one that has left the list meanwhile."""
        self.taken.pop(which % len(self.taken))(outcome, seconds)

    @invariant()
    def somebody_is_picked(self) -> None:
        picked = self.balancer.pick((), None)
        assert (picked is None) == (not self.listed)
        if picked is not None:
            assert picked[0].id in ids(self.listed)
            picked[1](OK, 0.01)


class TestUnderChurn:
    @names
    def test_only_who_is_listed_is_picked(self, name: str) -> None:
        from hypothesis.stateful import run_state_machine_as_test

        machine = type(f"UnderChurn_{name}", (UnderChurn,), {"name": name})
        run_state_machine_as_test(
            machine, settings=settings(deadline=None, max_examples=25, stateful_step_count=30)
        )
