"""What counts as a large drop, and what is kept meanwhile."""

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st

from meshkit.discovery.damping import is_large_drop, keep_missing, missing
from meshkit.model import Snapshot, Status
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
    kept = keep_missing(snapshot(1, 2), all_lapsed)
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
    kept = keep_missing(before, after)
    assert numbers(kept) == sorted(old | new)
    assert [each for each in kept.instances if each.version] == list(newer)
    assert (kept.revision, kept.read_at) == (after.revision, after.read_at)
    assert missing(before, kept) == ()
    assert not is_large_drop(before, kept)
