"""Which part of the calls stays in the own zone, by share and without steps."""

import dataclasses
import itertools
from collections import defaultdict

import pytest
from hypothesis import given, settings, strategies as st

from meshkit.discovery.tiers import Tier
from meshkit.discovery.zones import by_zone, spread
from meshkit.model import Instance, Snapshot
from tests.discovery.values import SERVICE, instance, numbers


def fleet(**sizes: int) -> list[Instance]:
    """Return so many instances in each zone; "none" is no zone."""
    placed = [zone.replace("none", "") for zone, size in sizes.items() for _ in range(size)]
    return [dataclasses.replace(instance(number), zone=zone) for number, zone in enumerate(placed)]


def parts(up: list[Instance], zone: str, avoided: tuple[int, ...] = ()) -> dict[str, float]:
    """Return the part of the calls that each zone gets."""
    away = {instance(each).id for each in avoided}
    shares = spread(up, zone, away).shares
    got: dict[str, float] = defaultdict(float)
    for each in up:
        if each.id not in away:
            got[each.zone] += each.weight * shares[each.id]
    total = sum(got.values())
    return {key: value / total for key, value in got.items()}


@pytest.mark.parametrize(
    ("sizes", "own"),
    [
        ({"a": 3, "b": 3}, 1),
        ({"a": 5, "b": 3}, 1),
        ({"a": 1, "b": 9}, 0.2),  # a zone should have five
        ({"a": 1, "b": 3}, 0.5),
        ({"a": 2, "b": 3, "c": 4}, 2 / 3),
        ({"a": 3, "b": 0, "c": 3}, 1),
        ({"b": 3}, 0),
        ({"a": 2, "b": 2, "none": 4}, 1),
        ({"none": 3}, 0),
    ],
)
def test_the_own_zone_keeps_what_it_can_carry(sizes: dict[str, int], own: float) -> None:
    up = fleet(**sizes)
    assert spread(up, "a", ()).own == pytest.approx(own)
    assert parts(up, "a").get("a", 0) == pytest.approx(own)


def test_those_set_aside_carry_nothing() -> None:
    up = fleet(a=4, b=4)
    assert parts(up, "a", avoided=(0,)) == pytest.approx({"a": 3 / 3.5, "b": 0.5 / 3.5})
    assert parts(up, "a", avoided=(0, 1, 2, 3)) == {"b": 1}


def test_the_rest_goes_to_those_who_have_more_than_their_part() -> None:
    assert parts(fleet(a=1, b=2, c=6), "a") == pytest.approx({"a": 1 / 3, "b": 0, "c": 2 / 3})
    assert parts(fleet(a=1, b=3, none=6), "a")["b"] == pytest.approx(0.5 * 1 / 7)


def test_nobody_in_the_own_zone() -> None:
    assert parts(fleet(b=3, c=3), "a") == pytest.approx({"b": 1 / 2, "c": 1 / 2})
    # A third of all callers are here, and b has only what its own need.
    assert parts(fleet(b=2, c=4), "a") == pytest.approx({"b": 0, "c": 1})


def test_weights_count() -> None:
    up = [*fleet(a=1, b=2)]
    up[0] = dataclasses.replace(up[0], weight=2)
    assert spread(up, "a", ()).own == 1


def test_all_set_aside() -> None:
    up = fleet(a=1, b=1)
    assert set(spread(up, "a", {each.id for each in up}).shares.values()) == {0}


zones = st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=30)


@settings(deadline=None)
@given(zones=zones, data=st.data())
def test_whatever_the_fleet(zones: list[str], data: st.DataObject) -> None:
    up = [
        dataclasses.replace(instance(each), zone=zone, weight=data.draw(st.integers(1, 5)))
        for each, zone in enumerate(zones)
    ]
    avoided = data.draw(st.sets(st.sampled_from([each.id for each in up]), max_size=len(up) - 1))
    found = spread(up, "a", avoided)
    alive = [each for each in up if each.id not in avoided]
    before = sum(each.weight for each in alive)
    after = sum(each.weight * found.shares[each.id] for each in alive)
    assert after == pytest.approx(before)
    assert 0 <= found.own <= 1
    assert all(share >= 0 for share in found.shares.values())
    near = sum(each.weight * found.shares[each.id] for each in alive if each.zone == "a")
    assert near / before == pytest.approx(found.own)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=2, max_size=4).filter(any))
def test_callers_spread_evenly_load_all_alike(sizes: list[int]) -> None:
    """The point of it: as much as can be stays at home, and nobody gets more than anybody."""
    names = "abcd"[: len(sizes)]
    up = fleet(**dict(zip(names, sizes, strict=True)))
    listed = [name for name in names if any(each.zone == name for each in up)]
    load: dict[str, float] = defaultdict(float)
    for zone in listed:
        found = spread(up, zone, ())
        for each in up:
            load[each.id] += found.shares[each.id]
    assert list(load.values()) == pytest.approx([len(listed)] * len(up))


@settings(deadline=None)
@given(size=st.integers(2, 20))
def test_one_more_or_less_never_moves_all(size: int) -> None:
    """By share and not all or nothing: losing one of n moves about one n-th."""
    up = fleet(a=size, b=size)
    owns = [
        spread(up, "a", {instance(each).id for each in range(gone)}).own for gone in range(size + 1)
    ]
    assert owns[0] == 1
    assert owns[-1] == 0
    steps = [before - after for before, after in itertools.pairwise(owns)]
    assert all(0 < step <= 2 / size for step in steps)


def test_a_datacenter_is_split_for_people() -> None:
    listed = Snapshot(service=SERVICE, instances=tuple(fleet(a=1, b=1, none=1)))
    near, rest = by_zone(Tier("dc1", listed), "a")
    assert (near.name, numbers(near.snapshot)) == ("zone a", [0])
    assert (rest.name, numbers(rest.snapshot)) == ("dc1", [1, 2])
