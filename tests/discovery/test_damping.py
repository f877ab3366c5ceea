"""What counts as a large drop, and what is kept meanwhile."""

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st

from meshkit.discovery.damping import Doubts, is_large_drop, keep, missing
from meshkit.model import Snapshot, Status
from tests.discovery.clock import Clock
from tests.discovery.values import instance, numbers, snapshot

lists = st.sets(st.integers(0, 12), max_size=10)


@pytest.mark.parametrize(
    ("old", "new", "large"),
    [
        ([1, 2, 3], [], True),
        ([1, 2, 3], [1], True),
        ([1, 2, 3], [1, 2], False),
        ([1, 2], [1], False),  # half is not more than half
        ([1], [], True),
        ([], [], False),
        ([], [1, 2], False),
        ([1, 2, 3], [4, 5, 6], True),
        ([1, 2, 3], [2, 3, 4, 5, 6], False),
    ],
)
def test_more_than_half_at_once_is_a_large_drop(
    old: list[int],
    new: list[int],
    large: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    assert is_large_drop(snapshot(*old), snapshot(*new)) is large


def test_a_status_is_taken_at_its_word() -> None:
    down = tuple(instance(number, status=Status.DOWN) for number in (1, 2, 3))
    all_down = Snapshot(service="users", instances=down)
    assert not is_large_drop(snapshot(1, 2, 3), all_down)
    # Nor is anything missed that could not be called anyway.
    assert not is_large_drop(all_down, snapshot())


def test_who_has_lapsed_may_have_been_overlooked() -> None:
    """A registry that hung finds all heartbeats overdue when it goes on."""
    lapsed = tuple(
        dataclasses.replace(instance(number), status=Status.DOWN, lapsed=True)
        for number in (1, 2, 3)
    )
    all_lapsed = Snapshot(service="users", instances=lapsed)
    assert is_large_drop(snapshot(1, 2, 3), all_lapsed)
    kept = keep(all_lapsed, missing(snapshot(1, 2), all_lapsed))
    assert [(each.id, each.up) for each in kept.instances] == [
        (instance(1).id, True),
        (instance(2).id, True),
        (instance(3).id, False),
    ]
    assert not is_large_drop(
        snapshot(1, 2, 3),
        Snapshot(service="users", instances=(*snapshot(1, 2).instances, lapsed[2])),
    )


@settings(deadline=None)
@given(lists, lists)
def test_what_is_kept_is_all_of_both_with_the_newer_word(old: set[int], new: set[int]) -> None:
    before = snapshot(*sorted(old))
    newer = tuple(
        dataclasses.replace(each, version="newer") for each in snapshot(*sorted(new)).instances
    )
    after = Snapshot(service="users", instances=newer, revision=7)
    kept = keep(after, missing(before, after))
    assert numbers(kept) == sorted(old | new)
    assert [each for each in kept.instances if each.version] == list(newer)
    assert (kept.revision, kept.read_at) == (after.revision, after.read_at)
    assert missing(before, kept) == ()
    assert not is_large_drop(before, kept)


class Followed:
    """A list in use, on a simulated clock."""

    def __init__(self, *numbers: int) -> None:
        self.clock = Clock()
        self.doubts = Doubts(6, clock=self.clock)
        self.used = snapshot(*numbers)

    def take(self, *found: int, recovering: bool = False, confirmed: bool = False) -> list[int]:
        new = snapshot(*found)
        self.used = self.doubts.apply(self.used, new, recovering=recovering, confirmed=confirmed)
        return numbers(self.used)


def test_a_second_loss_is_not_believed_by_the_time_of_the_first() -> None:
    followed = Followed(1, 2, 3)
    assert followed.take() == [1, 2, 3]
    followed.clock.advance(3)
    assert followed.take(1, 2, 3) == [1, 2, 3]
    assert not followed.doubts
    followed.clock.advance(2)
    assert followed.take() == [1, 2, 3]
    assert followed.doubts.left == 6
    followed.clock.advance(2)
    assert followed.take(confirmed=True) == [1, 2, 3]
    followed.clock.advance(4)
    assert followed.take() == [1, 2, 3]  # not before somebody has looked
    assert followed.take(confirmed=True) == []


def test_who_comes_back_first_may_be_lost_again_while_others_are_missing() -> None:
    followed = Followed(1, 2, 3)
    followed.take()
    followed.clock.advance(3)
    followed.take(1)
    followed.clock.advance(1)
    assert followed.take() == [1, 2, 3]
    followed.clock.advance(2)
    assert followed.take(confirmed=True) == [1]  # missing for 2 s; the others for 6
    followed.clock.advance(4)
    assert followed.take(confirmed=True) == []


def test_a_small_loss_is_believed_when_nobody_is_missing() -> None:
    followed = Followed(1, 2, 3)
    assert followed.take(2, 3) == [2, 3]
    followed = Followed(1, 2, 3)
    assert followed.take(2, 3, recovering=True) == [1, 2, 3]
    followed = Followed(1, 2, 3)
    followed.take()
    followed.take(1, 2, 3)
    assert followed.take(2, 3) == [2, 3]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(1, 4)), st.integers(0, 8)), min_size=1))
def test_nobody_is_kept_longer_than_doubted_and_who_is_listed_is_never_left_out(
    steps: list[tuple[set[int], int]],
) -> None:
    followed, now = Followed(1, 2, 3, 4), 0
    seen = dict.fromkeys((1, 2, 3, 4), 0)
    for found, seconds in steps:
        now += seconds
        followed.clock.advance(seconds)
        kept = followed.take(*sorted(found), confirmed=True)
        seen.update(dict.fromkeys(found, now))
        assert found <= set(kept)
        # Missed at the next list, at most 8 s later, and then doubted for less than 6.
        assert all(now - seen[each] < 8 + 6 for each in kept)
