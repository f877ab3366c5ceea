"""What holds whatever calls come to, on a simulated clock: property tests of the ejections."""

import math
from collections import Counter

from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshkit import EjectionPolicy
from meshkit.discovery.balancing import Done, Outcome
from meshkit.discovery.ejection import Ejections, Reason
from meshkit.discovery.ejection.record import ABSENT
from tests.discovery.clock import Clock
from tests.discovery.values import instance

MOST = 12
numbers = st.integers(1, MOST)
shares = st.floats(0, 1)
outcomes = st.sampled_from(list(Outcome))


class Fleet(RuleBasedStateMachine):
    """Calls end, time passes, lists change, probes and trials are made."""

    @initialize(share=shares, panic=shares, failures=st.integers(1, 3))
    def begin(self, share: float, panic: float, failures: int) -> None:
        self.clock = Clock()
        self.policy = EjectionPolicy(share=share, panic=panic, failures=failures, volume=3)
        self.ejections = Ejections(self.policy, clock=self.clock, later=self.clock.later)
        self.listed: set[str] = set()
        self.trials: dict[str, Done] = {}
        self.probes: set[str] = set()
        self.list_changes(set(range(1, 7)))

    @rule(found=st.sets(numbers))
    def list_changes(self, found: set[int]) -> None:
        self.listed = {instance(each).id for each in found}
        self.ejections.keep([instance(each) for each in found])
        self.trials = {key: done for key, done in self.trials.items() if key in self.listed}
        self.probes &= self.listed

    @rule(number=numbers, outcome=outcomes, seconds=st.floats(0, 5), times=st.integers(1, 6))
    def calls_end(self, number: int, outcome: Outcome, seconds: float, times: int) -> None:
        if instance(number).id in self.listed:
            for _ in range(times):
                self.ejections.observe(instance(number).id, outcome, seconds)

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(probed=st.booleans())
    def whose_pause_is_over_is_probed_or_tried(self, probed: bool) -> None:  # noqa: FBT001
        for key in self.ejections.waiting():
            if probed and self.ejections.to_probe(key):
                self.ejections.probing(key)
                self.probes.add(key)
            else:
                self.trials[key] = self.ejections.trial(key)
                self.probes.discard(key)
            assert key not in self.ejections.waiting()  # one at a time

    @rule(good=st.booleans())
    def probes_end(self, good: bool) -> None:  # noqa: FBT001
        for key in self.probes:
            self.ejections.probed(key, good=good)
            assert key in self.ejections.look() or self.taken_back(key)
        self.probes.clear()

    @rule(outcome=outcomes, seconds=st.floats(0, 5))
    def trials_end(self, outcome: Outcome, seconds: float) -> None:
        for done in self.trials.values():
            done(outcome, seconds)
        self.trials.clear()

    def taken_back(self, key: str) -> bool:
        """Whether an answer has shown meanwhile that it is there."""
        return key not in {each.instance_id for each in self.ejections.describe()}

    @invariant()
    def no_more_than_the_share(self) -> None:
        seen = {each.instance_id: each for each in self.ejections.describe()}
        absent = {key for key, each in seen.items() if each.reason in ABSENT}
        suspects = set(seen) - absent
        alive = len(self.listed - absent)
        avoided = self.ejections.avoided
        assert avoided >= absent
        assert avoided <= set(seen) == self.ejections.look() <= self.listed
        assert len(avoided - absent) <= self.policy.share * alive + 1e-6
        if len(suspects) > self.policy.panic * alive + 1e-6:
            assert avoided == absent
            assert self.ejections.panic
        if self.policy.share < 1:
            assert not alive or self.listed - avoided  # somebody is left who may be there

    @invariant()
    def nobody_is_away_for_longer_than_the_longest_pause(self) -> None:
        for each in self.ejections.describe():
            assert 0 <= each.seconds <= self.policy.longest_pause + 1e-6
            assert each.times >= 1

    @invariant()
    def who_is_aside_will_be_looked_at(self) -> None:
        waiting = {each.instance_id for each in self.ejections.describe()} - self.probes
        assert (self.ejections.next_return < math.inf) >= bool(waiting)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(deadline=None, max_examples=30, stateful_step_count=30)


@settings(deadline=None)
@given(bad=st.sets(st.integers(1, 10), max_size=5), turns=st.integers(1, 60))
def test_who_is_well_again_returns_and_who_is_not_gets_ever_fewer_calls(
    bad: set[int], turns: int
) -> None:
    clock = Clock()
    ejections = Ejections(clock=clock, later=clock.later)
    ejections.keep([instance(each) for each in range(1, 11)])
    calls: Counter[int] = Counter()

    def second(failing: set[int]) -> None:
        """Ten calls to each that is called at all, and one to each whose turn has come."""
        clock.advance(1)
        for key in ejections.waiting():
            number = int(key.removeprefix("users-"))
            calls[number] += 1
            ejections.trial(key)(Outcome.FAILED if number in failing else Outcome.OK, 0.01)
        for number in range(1, 11):
            if instance(number).id not in ejections.avoided:
                for _ in range(10):
                    calls[number] += 1
                    outcome = Outcome.FAILED if number in failing else Outcome.OK
                    ejections.observe(instance(number).id, outcome, 0.01)

    for _ in range(turns):
        second(bad)
    assert ejections.avoided == {instance(each).id for each in bad}
    assert all(calls[each] <= 10 + 6 + turns / 30 for each in bad)
    for _ in range(31):
        second(set())
    assert ejections.avoided == set()
    assert ejections.ejected == ({Reason.FAILURES: len(bad)} if bad else {})
