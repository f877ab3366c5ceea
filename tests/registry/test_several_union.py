"""What several lists are together, whatever they are."""

import dataclasses

from hypothesis import given, strategies as st

from meshkit.model import ServiceInfo, Snapshot
from meshkit.registry.several.union import add_up, merge, shared
from tests.discovery.values import SERVICE, instance

LISTS = st.lists(
    st.none() | st.tuples(st.sets(st.integers(0, 5)), st.booleans()), min_size=1, max_size=4
)


@given(LISTS)
def test_the_union_holds_each_once_and_believes_the_living_first(
    lists: list[tuple[set[int], bool] | None],
) -> None:
    snapshots = [
        None
        if each is None
        else Snapshot(
            service=SERVICE,
            instances=tuple(
                dataclasses.replace(instance(number), weight=place + 1)
                for number in sorted(each[0])
            ),
            stale=each[1],
            read_at=float(place),
        )
        for place, each in enumerate(lists)
    ]
    union = merge(SERVICE, snapshots, revision=3)
    everybody = {number for each in lists if each is not None for number in each[0]}
    assert [each.id for each in union.instances] == [instance(n).id for n in sorted(everybody)]
    assert union.stale == any(each is None or each[1] for each in lists)
    for found in union.instances:
        holders = [
            (each.stale, place)
            for place, each in enumerate(snapshots)
            if each is not None and found.id in {one.id for one in each.instances}
        ]
        assert found.weight == min(holders)[1] + 1
    old = [each.read_at for each in snapshots if each is not None and each.stale]
    if old:
        assert union.read_at == min(old)


@given(st.lists(st.sets(st.sampled_from("abcd")), max_size=4))
def test_names_in_several_lists_are_counted_anew(lists: list[set[str]]) -> None:
    infos = [
        tuple(ServiceInfo(name=name, tags=(str(place),), instances=2) for name in sorted(names))
        for place, names in enumerate(lists)
    ]
    names = shared(infos)
    assert names == {each for each in "abcd" if sum(each in one for one in lists) > 1}
    total = add_up(infos, dict.fromkeys(names, 3))
    assert [each.name for each in total] == sorted(set().union(*lists))
    for each in total:
        assert each.instances == (3 if each.name in names else 2)
        assert list(each.tags) == [str(n) for n, one in enumerate(lists) if each.name in one]
    assert add_up(infos, dict.fromkeys("abcd", 0)) == ()
