"""Round robin: fair, complete, and never somebody who left or was excluded."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from meshkit.discovery.balancing import Candidate, Done, Outcome, RoundRobin
from meshkit.model import Instance
from tests.discovery.values import instance

sets = st.sets(st.integers(0, 12), max_size=10)


def of(numbers: set[int]) -> list[Instance]:
    return [instance(number) for number in sorted(numbers)]


def candidates(numbers: set[int]) -> list[Candidate]:
    return [Candidate(each) for each in of(numbers)]


def picks(balancer: RoundRobin, count: int, exclude: Sequence[str] = ()) -> list[str]:
    found = [balancer.pick(exclude, None) for _ in range(count)]
    return [each[0].id for each in found if each is not None]


def test_nobody_is_picked_from_nobody() -> None:
    assert RoundRobin().pick((), None) is None
    balancer = RoundRobin()
    balancer.update(candidates({1}))
    balancer.update([])
    assert balancer.pick((), None) is None


@settings(deadline=None, max_examples=50)
@given(sets.filter(bool), st.integers(1, 5))
def test_every_round_picks_each_once(numbers: set[int], rounds: int) -> None:
    balancer = RoundRobin()
    balancer.update(candidates(numbers))
    counts = Counter(picks(balancer, rounds * len(numbers)))
    assert counts == {each.id: rounds for each in of(numbers)}


@settings(deadline=None, max_examples=50)
@given(sets, sets)
def test_an_excluded_one_is_never_picked_and_the_others_always_are(
    numbers: set[int], excluded: set[int]
) -> None:
    balancer = RoundRobin()
    balancer.update(candidates(numbers))
    exclude = {each.id for each in of(excluded)}
    wanted = {each.id for each in of(numbers)} - exclude
    assert set(picks(balancer, 3 * len(numbers), list(exclude))) == wanted
    if not wanted:
        assert balancer.pick(exclude, None) is None


@settings(deadline=None, max_examples=50)
@given(st.lists(sets.filter(bool), min_size=2, max_size=8))
def test_a_list_change_does_not_repeat_the_round_for_those_who_had_their_turn(
    lists: list[set[int]],
) -> None:
    """The turn goes on with who was next: nobody gets two calls ahead of another who stays."""
    staying = set.intersection(*lists)
    balancer = RoundRobin()
    counts: Counter[str] = Counter()
    for numbers in lists:
        balancer.update(candidates(numbers))
        counts.update(picks(balancer, 1))
    shares = [counts[each.id] for each in of(staying)]
    if shares:
        assert max(shares) - min(shares) <= 1


@settings(deadline=None, max_examples=50)
@given(st.lists(sets, max_size=30))
def test_nobody_starves_under_constant_churn(churn: list[set[int]]) -> None:
    """One who stays is picked at least once in as many picks as the list was ever long."""
    balancer = RoundRobin()
    since = 0
    for numbers in churn:
        balancer.update(candidates(numbers | {5}))
        (picked,) = picks(balancer, 1)
        since = 0 if picked == instance(5).id else since + 1
        assert since <= 13


def test_callers_do_not_start_in_step() -> None:
    first = []
    for _ in range(200):
        balancer = RoundRobin()
        balancer.update(candidates(set(range(10))))
        first += picks(balancer, 1)
    assert len(set(first)) == 10


class UnderChurn(RuleBasedStateMachine):
    """Whatever the order of changes, picks and outcomes: only who is listed is picked."""

    def __init__(self) -> None:
        super().__init__()
        self.balancer = RoundRobin()
        self.listed: set[int] = set()
        self.taken: list[Done] = []

    @rule(numbers=sets)
    def change(self, numbers: set[int]) -> None:
        self.listed = numbers
        self.balancer.update(candidates(numbers))

    @rule(excluded=sets)
    def pick(self, excluded: set[int]) -> None:
        picked = self.balancer.pick({each.id for each in of(excluded)}, None)
        left = self.listed - excluded
        assert (picked is None) == (not left)
        if picked is not None:
            assert picked[0] in of(left)
            self.taken.append(picked[1])

    @precondition(lambda self: self.taken)
    @rule(outcome=st.sampled_from(Outcome))
    def done(self, outcome: Outcome) -> None:
        """Also for one that has left the list meanwhile."""
        self.taken.pop()(outcome, 0.1)

    @invariant()
    def a_round_is_complete(self) -> None:
        found = picks(self.balancer, len(self.listed))
        assert sorted(found) == [each.id for each in of(self.listed)]


TestUnderChurn = UnderChurn.TestCase
TestUnderChurn.settings = settings(deadline=None, max_examples=30, stateful_step_count=20)
