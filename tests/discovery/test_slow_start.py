"""Slow start: newcomers among the established begin with little; nobody else is held back."""

import dataclasses
from collections.abc import Sequence

import pytest

from meshkit.discovery.balancing.slow_start import LEAST, STEPS, SlowStart
from meshkit.model import Instance
from tests.discovery.clock import Clock
from tests.discovery.values import instance

SECONDS = 20.0
EPOCH = 1_700_000_000.0


class World:
    """A slow start with its clocks: the wall's is the other one plus a constant."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.clock = Clock()
        self.slow_start = SlowStart(seconds, clock=self.clock, wall=self.wall)

    def wall(self) -> float:
        return self.clock.now + EPOCH

    def see(self, *instances: Instance) -> list[float]:
        self.slow_start.see(instances)
        return self.factors(instances)

    def factors(self, instances: Sequence[Instance]) -> list[float]:
        factors, again = self.slow_start.factors(instances)
        assert again in (None, SECONDS / STEPS)
        return [round(each, 6) for each in factors]


@pytest.fixture
def world() -> World:
    return World()


def started(number: int, at: float) -> Instance:
    return dataclasses.replace(instance(number), started_at=at)


def test_the_first_list_is_taken_for_old(world: World) -> None:
    assert world.see(instance(1), instance(2)) == [1, 1]


def test_a_newcomer_rises_evenly(world: World) -> None:
    world.see(instance(1), instance(2))
    three = (instance(1), instance(2), instance(3))
    assert world.see(*three) == [1, 1, LEAST]
    world.clock.now += SECONDS / 2
    assert world.factors(three) == [1, 1, (LEAST + 1) / 2]
    world.clock.now += SECONDS / 2
    assert world.factors(three) == [1, 1, 1]
    assert world.slow_start.factors(three)[1] is None  # nothing to ask again for


def test_one_of_the_first_list_that_says_it_is_new_is_new(world: World) -> None:
    new = started(3, world.wall() - SECONDS / 2)
    old = started(2, world.wall() - 1000)
    assert world.see(instance(1), old, new) == [1, 1, (LEAST + 1) / 2]


def test_a_newcomer_that_started_long_ago_is_not_cold(world: World) -> None:
    """It was on the other side of a partition, or its health check had failed."""
    world.see(instance(1))
    assert world.see(instance(1), started(2, world.wall() - 1000)) == [1, 1]


def test_a_clock_that_is_ahead_prolongs_nothing(world: World) -> None:
    ahead = started(2, world.wall() + 3600)
    assert world.see(instance(1), ahead) == [1, LEAST]
    world.clock.now += SECONDS
    assert world.factors((instance(1), ahead)) == [1, 1]


def test_when_most_are_new_nobody_is_held_back(world: World) -> None:
    """Else the last of the old would get the calls of all."""
    world.see(instance(1))
    assert world.see(instance(1), instance(2)) == [1, LEAST]
    assert world.see(instance(1), instance(2), instance(3)) == [1, 1, 1]
    world.clock.now += SECONDS
    assert world.factors((instance(1), instance(2), instance(3))) == [1, 1, 1]


def test_at_the_start_of_everybody_nobody_is_held_back(world: World) -> None:
    assert world.see(started(1, world.wall() - 2), started(2, world.wall() - 1)) == [1, 1]


def test_an_established_one_gets_no_more_than_before_the_newcomers(world: World) -> None:
    """Whatever the numbers: its share after they came is at most what it had."""
    for old in range(1, 12):
        for new in range(1, 25):
            world = World()
            world.see(*map(instance, range(old)))
            factors = world.see(*map(instance, range(old + new)))
            assert factors[0] / sum(factors) <= 1 / old + 1e-9


def test_an_empty_first_list_is_no_list(world: World) -> None:
    world.see()
    assert world.see(instance(1), instance(2)) == [1, 1]


def test_none_is_none() -> None:
    world = World(0)
    world.see(instance(1))
    assert world.see(instance(1), instance(2)) == [1, 1]


def test_of_those_that_left_nothing_is_kept(world: World) -> None:
    for number in range(1000):
        world.see(instance(number))
    assert len(world.slow_start._seen) == 1
