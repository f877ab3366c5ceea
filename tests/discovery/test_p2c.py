"""Power of two choices on a simulated clock: who is slow, hung or failing gets few calls."""

import random
from collections import Counter

import pytest

from meshkit.discovery.balancing import Outcome, PowerOfTwo
from tests.discovery.simulation import HANGS, Behaviour, Simulation, share
from tests.discovery.values import instance

RATES = [2, 20, 200, 2000]
FAILURES = [
    Outcome.FAILED,
    Outcome.TIMEOUT,
    Outcome.REFUSED,
    Outcome.WRONG,
    Outcome.SHED,
]


def three(seed: int = 1) -> Simulation:
    simulation = Simulation(PowerOfTwo, seed=seed)
    simulation.update([1, 2, 3])
    return simulation


def seconds_of(calls: int, rate: float) -> float:
    return calls / rate


@pytest.mark.parametrize("rate", RATES)
def test_equal_instances_get_equal_shares(rate: int) -> None:
    calls = three().run(seconds_of(10_000, rate), rate)
    assert all(0.31 < share(calls, number) < 0.36 for number in (1, 2, 3))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("known_for", [0, 1000])
def test_one_twenty_times_slower_gets_less_than_five_percent(rate: int, known_for: int) -> None:
    simulation = three()
    simulation.run(seconds_of(known_for, rate), rate)
    simulation.behaviour[3] = Behaviour(0.4)
    assert share(simulation.run(seconds_of(10_000, rate), rate), 3) < 0.05
    later = simulation.run(seconds_of(10_000, rate), rate)
    assert share(later, 3) < 0.03
    if rate < 2000:
        assert later[3] > 0  # it is asked now and then whether it is well again


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("outcome", FAILURES)
def test_one_that_fails_fast_does_not_attract_load(rate: int, outcome: Outcome) -> None:
    simulation = three()
    simulation.run(seconds_of(1000, rate), rate)
    simulation.behaviour[3] = Behaviour(0.0005, outcome)
    assert share(simulation.run(seconds_of(10_000, rate), rate), 3) < 0.03


@pytest.mark.parametrize("rate", RATES)
def test_one_that_fails_fast_from_the_start_does_not_attract_load(rate: int) -> None:
    simulation = three()
    simulation.behaviour[3] = Behaviour(0.0005, Outcome.FAILED)
    assert share(simulation.run(seconds_of(10_000, rate), rate), 3) < 0.03


@pytest.mark.parametrize("rate", [2, 20, 200])
@pytest.mark.parametrize("seed", range(5))
def test_a_hung_one_gets_no_more_calls_than_the_others_have_under_way(rate: int, seed: int) -> None:
    """At 200 calls/s of 20 ms the others have about two each under way, at times six."""
    simulation = three(seed)
    simulation.run(10, rate)
    simulation.behaviour[3] = Behaviour(HANGS)
    assert simulation.run(30, rate)[3] <= 10
    assert simulation.run(300, rate)[3] <= 1  # and no more of them later


@pytest.mark.parametrize("rate", RATES)
def test_one_that_never_answers_from_the_start_gets_few_calls(rate: int) -> None:
    simulation = three()
    simulation.behaviour[3] = Behaviour(HANGS)
    calls = simulation.run(seconds_of(10_000, rate), rate)
    assert share(calls, 3) < 0.01
    assert rate > 20 or calls[3] <= 6


def test_a_hung_one_among_calls_one_by_one_gets_one_or_two() -> None:
    simulation = three()
    simulation.run_one_by_one(100)
    simulation.behaviour[3] = Behaviour(HANGS)
    assert simulation.run(60, 2)[3] <= 2


def test_one_that_is_well_again_gets_its_share_back() -> None:
    for behaviour in (Behaviour(0.4), Behaviour(0.001, Outcome.FAILED)):
        simulation = three()
        simulation.behaviour[3] = behaviour
        simulation.run(20, 200)
        del simulation.behaviour[3]
        simulation.run(20, 200)
        assert share(simulation.run(10, 200), 3) > 0.25


def test_an_outage_of_all_ends_for_all() -> None:
    simulation = three()
    simulation.run(5, 200)
    for number in (1, 2, 3):
        simulation.behaviour[number] = Behaviour(0.001, Outcome.FAILED)
    calls = simulation.run(30, 200)
    assert all(share(calls, number) > 0.2 for number in (1, 2, 3))
    simulation.behaviour = {}
    simulation.run(20, 200)
    calls = simulation.run(10, 200)
    assert all(share(calls, number) > 0.28 for number in (1, 2, 3))


def test_failures_of_all_alike_shift_nothing() -> None:
    """One in ten fails everywhere: nobody is to blame."""
    simulation = three()
    chance = random.Random(2)
    calls: Counter[int] = Counter()
    for _ in range(300):
        for number in (1, 2, 3):
            failing = chance.random() < 0.1
            simulation.behaviour[number] = Behaviour(
                0.02, Outcome.FAILED if failing else Outcome.OK
            )
        calls += simulation.run(0.1, 200)
    assert all(0.2 < share(calls, number) < 0.5 for number in (1, 2, 3))


@pytest.mark.parametrize("weights", [(1, 2, 4), (1, 1, 100), (0.1, 1, 1)])
@pytest.mark.parametrize("rate", [2, 200])
def test_shares_follow_the_weights(weights: tuple[float, ...], rate: int) -> None:
    simulation = Simulation(PowerOfTwo)
    simulation.update([1, 2, 3], weights)
    calls = simulation.run(seconds_of(20_000, rate), rate)
    for number, weight in zip((1, 2, 3), weights, strict=True):
        wanted = weight / sum(weights)
        assert wanted * 0.8 - 0.01 < share(calls, number) < wanted * 1.2 + 0.01


def test_a_newcomer_begins_as_a_typical_one() -> None:
    """Neither as the fastest, which would draw all calls, nor as slow as the slowest."""
    simulation = three()
    simulation.behaviour[3] = Behaviour(0.4)
    simulation.run(20, 200)
    simulation.update([1, 2, 3, 4])
    calls = simulation.run(1, 200)
    assert 0.2 < share(calls, 4) < 0.45


def test_what_is_known_survives_a_list_without_it() -> None:
    simulation = three()
    simulation.behaviour[3] = Behaviour(0.4)
    simulation.run(20, 200)
    simulation.update([1, 2])
    simulation.run(1, 200)
    simulation.update([1, 2, 3])
    assert simulation.run(2, 200)[3] <= 6


def test_a_retry_goes_to_the_better_of_those_left() -> None:
    simulation = three()
    simulation.behaviour[3] = Behaviour(0.4)
    simulation.run(20, 200)
    picked = [simulation.balancer.pick({instance(1).id}, None) for _ in range(3)]
    assert all(each is not None and each[0] == instance(2) for each in picked)


def test_a_call_that_was_given_up_early_says_nothing_and_late_that_it_was_slow() -> None:
    for seconds, least, most in ((0.0001, 0.25, 0.45), (2.0, 0.0, 0.05)):
        simulation = three()
        simulation.run(5, 20)
        simulation.behaviour[3] = Behaviour(seconds, Outcome.CANCELLED)
        assert least < share(simulation.run(100, 20), 3) + 1e-9 < most


def test_a_thousand_instances_are_all_used_and_the_slow_ones_are_spared() -> None:
    simulation = Simulation(PowerOfTwo)
    simulation.update(range(1000))
    slow = set(range(0, 1000, 10))
    for number in slow:
        simulation.behaviour[number] = Behaviour(0.4)
    simulation.run(5, 10_000)
    calls = simulation.run(10, 10_000)
    fine = [calls[number] for number in range(1000) if number not in slow]
    assert min(fine) > 40
    assert max(fine) < 200
    assert sum(calls[number] for number in slow) < 0.02 * calls.total()


def test_a_thousand_instances_that_come_and_go_are_all_used() -> None:
    simulation = Simulation(PowerOfTwo)
    total: Counter[int] = Counter()
    for first in range(0, 500, 50):  # a rolling restart: fifty at a time
        simulation.update(range(first, first + 1000))
        total += simulation.run(1, 10_000)
    assert set(total) == set(range(1450))
    staying = [total[number] for number in range(450, 1000)]
    assert max(staying) < 2 * min(staying)


def test_a_cold_first_call_does_not_count() -> None:
    """It connects, and its handler loads code: one of three took half a second for it."""
    simulation = three()
    simulation.behaviour[1] = Behaviour(0.5)
    simulation.run_one_by_one(1)
    while not simulation.calls[1]:
        simulation.run_one_by_one(1)
    simulation.behaviour = {}
    calls = simulation.run_one_by_one(60)
    assert all(share(calls, number) > 0.2 for number in (1, 2, 3))


def test_a_bad_name_has_an_end_however_bad_it_was() -> None:
    """An answer after ten minutes says no more than one after a few seconds."""
    simulation = three()
    simulation.run(5, 200)
    simulation.behaviour[3] = Behaviour(600.0, jitter=0)
    simulation.run(1, 200)
    simulation.behaviour = {}
    simulation.run(600, 200)  # its few calls have ended
    simulation.run(6, 200)
    assert share(simulation.run(5, 200), 3) > 0.25


def test_those_not_called_yet_make_nobody_else_look_bad() -> None:
    """With many instances the first looks come when few have answered."""
    simulation = Simulation(PowerOfTwo)
    simulation.update(range(100))
    for number in range(5):
        simulation.behaviour[number] = Behaviour(2.0)
    simulation.run(30, 20)
    simulation.run(60, 200)
    calls = simulation.run(60, 200)
    assert sum(calls[number] for number in range(5)) < 0.05 * calls.total()
