"""Setting aside: at once, for a growing while, and forgiven after a good answer."""

import math

import pytest

from meshkit.discovery.outlier import FIRST, LONGEST, Ejections


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejections(clock: Clock) -> Ejections:
    return Ejections(clock)


def test_nobody_is_aside_at_first(ejections: Ejections) -> None:
    assert not ejections
    assert ejections.aside() == set()
    assert not ejections.due()
    assert ejections.next_return == math.inf


def test_one_is_aside_for_its_pause(ejections: Ejections, clock: Clock) -> None:
    ejections.eject("a")
    assert ejections
    assert ejections.aside() == {"a"}
    assert ejections.next_return == clock.now + FIRST
    clock.now += FIRST - 0.01
    assert not ejections.due()
    clock.now += 0.01
    assert ejections.due()
    assert ejections.aside() == set()
    assert not ejections.due()


def test_the_pause_doubles_up_to_a_limit(ejections: Ejections, clock: Clock) -> None:
    pauses = []
    for _ in range(8):
        ejections.eject("a")
        pauses.append(ejections.next_return - clock.now)
        clock.now = ejections.next_return
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pauses[-1] == LONGEST


def test_a_good_answer_begins_the_row_anew(ejections: Ejections, clock: Clock) -> None:
    ejections.eject("a")
    ejections.eject("a")
    assert ejections.forgive("a")
    assert not ejections.forgive("a")
    assert not ejections
    assert ejections.aside() == set()
    assert ejections.next_return == math.inf
    ejections.eject("a")
    assert ejections.next_return == clock.now + FIRST


def test_a_pause_of_a_given_length(ejections: Ejections, clock: Clock) -> None:
    ejections.eject("a", seconds=30)
    assert ejections.next_return == clock.now + 30


def test_the_earliest_return_is_the_one_that_is_due(ejections: Ejections, clock: Clock) -> None:
    ejections.eject("a", seconds=30)
    ejections.eject("b", seconds=10)
    assert ejections.next_return == clock.now + 10
    clock.now += 10
    assert ejections.due()
    assert ejections.aside() == {"a"}
    assert ejections.next_return == clock.now + 20


def test_who_left_takes_its_record_along(ejections: Ejections, clock: Clock) -> None:
    ejections.eject("a")
    ejections.eject("b")
    ejections.keep({"b", "c"})
    assert ejections.aside() == {"b"}
    ejections.eject("a")
    assert ejections.next_return == clock.now + FIRST


def test_calls_under_way_together_count_once(ejections: Ejections, clock: Clock) -> None:
    for _ in range(50):
        ejections.eject("a")
    assert ejections.next_return == clock.now + FIRST


def test_the_pause_stays_bounded_however_often_it_fails(ejections: Ejections, clock: Clock) -> None:
    for _ in range(2000):
        ejections.eject("a")
        clock.now = ejections.next_return
    ejections.eject("a")
    assert ejections.next_return == clock.now + 30
