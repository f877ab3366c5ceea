"""When a place suffices, for how long it has to, and which places are added."""

import dataclasses
import math

import pytest
from hypothesis import given, strategies as st

from meshkit.discovery.tiers import (
    FORGET,
    HOLD,
    MARGIN,
    SHARE,
    Health,
    Tier,
    merge,
    needed,
)
from meshkit.model import Snapshot, Status
from tests.discovery.values import SERVICE, instance, numbers, snapshot

DOWN = Status.DOWN


def tier(name: str, *up: int, down: tuple[int, ...] = (), pending: bool = False) -> Tier:
    listed = (*map(instance, up), *(instance(each, status=DOWN) for each in down))
    return Tier(name, Snapshot(service=SERVICE, instances=listed), pending=pending)


def chosen(*tiers: Tier, aside: set[str] | None = None, share: float = SHARE) -> int | None:
    health = {each.name: Health(share) for each in tiers}
    return needed(tiers, health, aside or set(), now=0.0)


# --- health ---------------------------------------------------------------------------------------


def test_it_falls_below_its_share_and_not_before() -> None:
    health = Health(0.5)
    assert health.judge(4, 4, now=0)
    assert health.judge(2, 4, now=1)
    assert not health.judge(1, 4, now=2)


def test_it_rises_when_more_than_the_share_has_been_up_for_a_while() -> None:
    health = Health(0.5)
    health.judge(1, 4, now=0)
    assert not health.judge(2, 4, now=10)  # the share is not enough
    assert health.due == FORGET
    assert not health.judge(3, 4, now=20)
    assert health.due == 20 + HOLD
    assert not health.judge(2, 4, now=20 + HOLD - 1)  # it has to stay so
    assert not health.judge(3, 4, now=30)
    assert health.judge(3, 4, now=30 + HOLD)
    assert health.due == math.inf


def test_forgetting_the_crashed_is_no_recovery() -> None:
    health = Health(0.5)
    health.judge(10, 10, now=0)
    health.judge(1, 10, now=1)
    for now in (100.0, 200.0):
        assert not health.judge(1, 1, now=now)  # the registry has removed nine
    assert not health.judge(1, 1, now=1 + FORGET)
    assert health.judge(1, 1, now=1 + FORGET + HOLD)  # such a fleet is meant


def test_nor_is_the_departure_of_all_but_one() -> None:
    health = Health(0.5)
    health.judge(4, 4, now=0)
    assert not health.judge(0, 0, now=1)
    assert not health.judge(1, 1, now=2)
    assert not health.judge(1, 1, now=100)
    health.judge(4, 4, now=200)
    assert health.judge(4, 4, now=200 + HOLD)


def test_corpses_of_those_who_were_replaced_do_not_count() -> None:
    health = Health(0.5)
    health.judge(3, 3, now=0)
    health.judge(0, 3, now=1)
    health.judge(3, 6, now=2)
    assert health.judge(3, 6, now=2 + HOLD)
    assert health.judge(2, 6, now=20)
    assert not health.judge(1, 6, now=21)


@given(
    share=st.floats(0.05, 1),
    looks=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.floats(0, 30)), min_size=1, max_size=60
    ),
)
def test_whatever_happens(share: float, looks: list[tuple[int, int, float]]) -> None:
    """Never healthy with nobody, never twice up within the hold, and up in the end."""
    health, now, fallen_at = Health(share), 0.0, -math.inf
    healthy = True
    for up, more, pause in looks:
        now += pause
        before, healthy = healthy, health.judge(up, up + more, now=now)
        assert not (healthy and up == 0)
        if healthy and not before:
            assert now - fallen_at >= HOLD
            assert up > 0
        if before and not healthy:
            fallen_at = now
        if before and up and more == 0:
            assert healthy
        assert health.due == math.inf or (not healthy and health.due >= now)
    for _ in range(3):
        now = max(now, min(health.due, now + FORGET)) + 0.001
        healthy = health.judge(24, 24, now=now)
    assert healthy


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tiers", "count"),
    [
        ([tier("a", 1, 2), tier("b", 3)], 1),
        ([tier("a", 1, down=(2,)), tier("b", 3)], 1),
        ([tier("a", 1, down=(2, 3)), tier("b", 4), tier("c", 5)], 2),
        ([tier("a", down=(1,)), tier("b", 2, down=(3, 4)), tier("c", 5)], 3),
        ([tier("a"), tier("b", 2)], 2),
        ([tier("a"), tier("b"), tier("c")], 3),
        ([tier("a", 1, down=(2, 3))], 1),
        ([Tier("a", None, pending=True), tier("b", 2)], None),
        ([Tier("a", None), tier("b", 2)], 2),
        ([Tier("a", None), Tier("b", None)], None),
        ([tier("a", down=(1,)), Tier("b", None, pending=True), tier("c", 2)], None),
        ([tier("a", 1, down=(2, 3)), Tier("b", None, pending=True), tier("c", 4)], 3),
        ([tier("a", 1), Tier("b", None, pending=True)], 1),
    ],
)
def test_tiers_are_added_until_one_is_healthy(tiers: list[Tier], count: int | None) -> None:
    assert chosen(*tiers) == count


def test_those_set_aside_are_not_up() -> None:
    near, far = tier("a", 1, 2, 3), tier("b", 4)
    assert chosen(near, far, aside={instance(1).id}) == 1
    assert chosen(near, far, aside={instance(1).id, instance(2).id}) == 2


def test_who_leaves_or_starts_is_not_missed() -> None:
    leaving = (instance(each, status=Status.DRAINING) for each in (2, 3, 4))
    starting = (instance(each, status=Status.STARTING) for each in (5, 6, 7))
    listed = Snapshot(service=SERVICE, instances=(instance(1), *leaving, *starting))
    assert chosen(Tier("a", listed), tier("b", 9)) == 1


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 9)), st.integers(0, 5), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
def test_whoever_is_up_somewhere_is_found(places: list[tuple[set[int], int, bool]]) -> None:
    tiers = []
    for place, (up, down, known) in enumerate(places):
        numbers = [100 * place + each for each in up]
        dead = tuple(100 * place + 50 + each for each in range(down))
        tiers.append(tier(str(place), *numbers, down=dead) if known else Tier(str(place), None))
    count = chosen(*tiers)
    if count is None:
        assert not any(known for _, _, known in places)
        return
    used = merge(SERVICE, tiers[:count], revision=1)
    assert bool(used.up) == any(each.up for each in tiers)
    assert [each.id for each in used.instances] == sorted(each.id for each in used.instances)


def test_margin_never_asks_for_more_than_all() -> None:
    health = Health(1 - MARGIN / 2)
    health.judge(1, 4, now=0)
    health.judge(4, 4, now=1)
    assert health.judge(4, 4, now=1 + HOLD)


def test_a_merged_list_is_as_old_as_the_oldest() -> None:
    old = dataclasses.replace(snapshot(1), stale=True, read_at=5.0)
    both = merge(SERVICE, [Tier("a", snapshot(2)), Tier("b", old), Tier("c", None)], revision=7)
    assert (numbers(both), both.stale, both.read_at, both.revision) == ([1, 2], True, 5.0, 7)
