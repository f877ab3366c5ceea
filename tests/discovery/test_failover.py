"""Following several places: added when near ones fall short, dropped when those are well again."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from meshkit import Mesh
from meshkit.discovery import failover as failover_module, tiers
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.cache import SnapshotCache
from meshkit.discovery.ejection import Ejections
from meshkit.discovery.failover import HOME, Failover
from meshkit.discovery.places import Places
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import Target
from meshkit.errors import ConfigError, NoInstances, RegistryError
from meshkit.model import Status
from meshkit.registry import Datacenters, Registry
from tests.discovery.values import SERVICE, Commanded, away, instance, numbers
from tests.support.waiting import aeventually

HOLD = 0.3


class World(Commanded, Datacenters):
    """The own datacenter dc1, and others that are registries of their own."""

    def __init__(self, name: str, *others: str) -> None:
        super().__init__(name)
        self.others = {each: Commanded(f"{name}-{each}") for each in others}
        self.no_names: RegistryError | None = None
        self.asked = 0

    async def datacenters(self) -> tuple[str, ...]:
        self.asked += 1
        if self.no_names is not None:
            raise self.no_names
        return ("dc1", *self.others)

    def in_datacenter(self, name: str) -> Registry:
        return self.others[name]


@pytest.fixture(autouse=True)
def _short_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "HOLD", HOLD)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    return World(request.node.name, "dc2", "dc3")


@asynccontextmanager
async def following(
    world: World, *names: str, zone: str = "", ejections: Ejections | None = None
) -> AsyncIterator[Failover]:
    made = Failover(
        SERVICE,
        Places(world, names or ("dc2", "dc3")),
        lambda registry: Subscription(registry, SERVICE, None),
        zone=zone,
        ejections=ejections,
    )
    try:
        yield made
    finally:
        await made.aclose()
        await made.aclose()  # twice is safe


@asynccontextmanager
async def targeting(world: World, *names: str) -> AsyncIterator[Target]:
    ejections = Ejections()
    async with following(world, *names, ejections=ejections) as followed:
        yield Target(followed, ejections=ejections)


async def until(failover: Failover, *wanted: int) -> None:
    async def listed() -> bool:
        return failover.snapshot is not None and numbers(failover.snapshot) == list(wanted)

    await aeventually(listed)


async def fill(world: World) -> None:
    await world.put(*map(instance, (1, 2, 3, 4)))
    await world.others["dc2"].put(instance(21), instance(22))
    await world.others["dc3"].put(instance(31))


def used(failover: Failover) -> list[str]:
    return list(failover.tiers)


def called(target: Target, tried: list[str]) -> list[int]:
    """Return the numbers of those who get a call's next attempt."""
    picks = [target.try_pick("http", tried) for _ in range(50)]
    return sorted({int(pick.instance.id.removeprefix("users-")) for pick in picks if pick})


async def show(world: World, status: Status, *numbers: int) -> None:
    await world.put(*(instance(number, status=status) for number in numbers))


async def test_the_own_datacenter_alone_while_it_suffices(world: World) -> None:
    await fill(world)
    async with following(world) as failover:
        await failover.known()
        await show(world, Status.DOWN, 1, 2)
        await asyncio.sleep(0.1)
        assert numbers(failover.snapshot) == [1, 2, 3, 4]
        assert used(failover) == [HOME]
        assert [each.id for each in failover.reserve] == ["users-021", "users-022"]


async def test_the_next_is_added_and_dropped_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(world)
    with caplog.at_level(logging.INFO, "meshkit.discovery"):
        async with following(world) as failover:
            await failover.known()
            await show(world, Status.DOWN, 1, 2, 3)
            await until(failover, 1, 2, 3, 4, 21, 22)
            assert used(failover) == [HOME, "dc2"]
            await world.others["dc2"].remove(21, 22)
            await until(failover, 1, 2, 3, 4, 31)
            assert used(failover) == [HOME, "dc3"]
            await show(world, Status.UP, 1, 2)
            await until(failover, 1, 2, 3, 4)
            assert used(failover) == [HOME]
    assert [each.getMessage() for each in caplog.records] == [
        "users: calls go to own datacenter (1 of 4 up), dc2 (2 of 2 up)",
        "users: calls go to own datacenter (1 of 4 up), dc2 (0 of 0 up), dc3 (1 of 1 up)",
        "users: calls go to own datacenter (3 of 4 up)",
    ]


async def test_it_does_not_flap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "HOLD", 2.0)  # longer than a busy machine makes of the pauses
    await fill(world)
    async with following(world) as failover:
        await failover.known()
        await show(world, Status.DOWN, 1, 2, 3)
        await until(failover, 1, 2, 3, 4, 21, 22)
        heard: list[int] = []
        failover.on_change(lambda each: heard.append(len(each.instances)))
        for _ in range(10):
            await show(world, Status.UP, 1, 2, 3)
            await asyncio.sleep(0.02)
            await show(world, Status.DOWN, 1, 2, 3)
            await asyncio.sleep(0.02)
        assert set(heard) == {6}
        await show(world, Status.UP, 1, 2, 3)
        await until(failover, 1, 2, 3, 4)


async def test_those_set_aside_by_callers_count_at_once(world: World) -> None:
    """Without any word from the registry, and without leaving the call that was refused."""
    await fill(world)
    async with targeting(world) as target:
        await target.pick("http")
        await until(target.subscription, 1, 2, 3, 4)  # type: ignore[arg-type]

        async def ready() -> bool:
            return len(target.subscription.reserve) == 2

        await aeventually(ready)
        tried: list[str] = []
        for _ in range(7):
            pick = target.try_pick("http", tried)
            assert pick
            tried.append(pick.instance.id)
            if pick.instance.id > "users-020":
                pick.done(Outcome.OK)
                break
            pick.done(Outcome.REFUSED)
        assert len(tried) == 3
        for number in (1, 2, 3, 4):
            target.observe(instance(number), Outcome.REFUSED, 0.1)
        counts = Counter(target.try_pick("http").instance.id for _ in range(30))  # type: ignore[union-attr]
        assert counts == {"users-021": 15, "users-022": 15}
        for number in (1, 2, 3, 4):
            target.observe(instance(number), Outcome.OK, 0.1)
        await until(target.subscription, 1, 2, 3, 4)  # type: ignore[arg-type]


async def test_a_call_that_failed_twice_goes_to_the_next_place(world: World) -> None:
    """Though the own datacenter suffices by its share: the third attempt may be the last."""
    await fill(world)
    async with targeting(world) as target:
        await target.pick("http")

        async def ready() -> bool:
            return len(target.subscription.reserve) == 2

        await aeventually(ready)
        tried = [instance(1).id]
        assert called(target, tried) == [2, 3, 4]
        tried.append(instance(2).id)
        assert called(target, tried) == [21, 22]
        tried += [instance(each).id for each in (21, 22)]
        assert called(target, tried) == [3, 4]
        tried += [instance(each).id for each in (3, 4)]
        with pytest.raises(NoInstances, match=r"^users: no instance left to try of 6$"):
            target.try_pick("http", tried)


async def test_when_nobody_suffices_all_are_used(world: World) -> None:
    await fill(world)
    for each in (world, world.others["dc2"], world.others["dc3"]):
        listed = (await each.instances(SERVICE)).instances[1:] or (instance(31),)
        await each.put(*(replace(one, status=Status.DOWN) for one in listed))
    await world.others["dc2"].put(*(instance(each, status=Status.DOWN) for each in (23, 24)))
    async with following(world) as failover:
        await until(failover, 1, 2, 3, 4, 21, 22, 23, 24, 31)
        assert used(failover) == [HOME, "dc2"]  # in dc3 there is nobody to call


async def test_the_own_zone_is_first(world: World) -> None:
    placed = [replace(instance(each), zone="ab"[each % 2]) for each in range(6)]
    await world.put(*placed)
    async with following(world, zone="a") as failover:
        await until(failover, 0, 1, 2, 3, 4, 5)
        assert used(failover) == ["zone a"]
        assert failover.own_zone == 1
        assert [each.id for each in failover.reserve] == [placed[each].id for each in (1, 3, 5)]
        assert set(failover.shares.values()) == {2, 0}
        await world.put(replace(placed[2], status=Status.DOWN))
        await sharing(failover, 2 / 2.5)
        assert used(failover) == ["zone a", HOME]
        await world.put(replace(placed[4], status=Status.DOWN))
        await sharing(failover, 1 / 2)
        await world.put(replace(placed[0], status=Status.DOWN))
        await sharing(failover, 0)
        assert used(failover) == [HOME]
        await world.put(*placed)
        await sharing(failover, 1)
        assert used(failover) == ["zone a"]


async def test_a_zone_spills_over_as_its_instances_are_set_aside(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.put(*(replace(instance(each), zone="ab"[each % 2]) for each in range(8)))
    ejections = Ejections()
    async with following(world, zone="a", ejections=ejections) as followed:
        target = Target(followed, ejections=ejections, slow_start=0)
        await target.pick("http")
        await sharing(followed, 1)
        assert {int(number) % 2 for number in called(target, [])} == {0}
        with caplog.at_level(logging.INFO, "meshkit.discovery"):
            target.observe(instance(0), Outcome.REFUSED, 0.1)
            assert followed.own_zone == pytest.approx(3 / 3.5)
            for _ in range(5):
                target.observe(instance(2), Outcome.FAILED, 0.1)
            assert followed.own_zone == pytest.approx(2 / 3)
            picks = [target.try_pick("http") for _ in range(3000)]
        counts: Counter[str] = Counter()
        for pick in picks:
            assert pick
            counts[pick.instance.id] += 1
        near = sum(counts[instance(each).id] for each in (0, 2, 4, 6))
        assert near / 3000 == pytest.approx(2 / 3, abs=0.05)
        assert counts[instance(0).id] + counts[instance(2).id] == 0
        goes = [each.getMessage() for each in caplog.records if "calls go" in each.getMessage()]
        assert goes == ["users: calls go to zone a (3 of 4 up), own datacenter (4 of 4 up)"]


async def test_a_datacenter_where_all_fail_gets_none_of_the_calls(world: World) -> None:
    """No panic there, when another one is well."""
    await fill(world)
    async with targeting(world) as target:
        await target.pick("http")
        for number in (1, 2, 3, 4):
            for _ in range(5):
                target.observe(instance(number), Outcome.FAILED, 0.1)
        await until(target.subscription, 1, 2, 3, 4, 21, 22)  # type: ignore[arg-type]
        assert called(target, []) == [21, 22]


async def sharing(failover: Failover, own: float) -> None:
    async def shared() -> bool:
        return failover.own_zone == pytest.approx(own)

    await aeventually(shared)


async def test_a_zone_needs_no_datacenters() -> None:
    alone = Commanded("zone-alone")
    await alone.put(replace(instance(1), zone="a"), replace(instance(2), zone="b"))
    async with Mesh(alone, zone="b") as mesh:
        pick = await mesh.target(SERVICE).pick("http")
        assert pick.instance.zone == "b"
    async with Mesh(alone) as mesh:
        target = mesh.target(SERVICE)
        await target.pick("http")
        assert isinstance(target.subscription, Subscription)


async def test_the_own_registry_lost_is_no_reason_by_itself(world: World) -> None:
    await fill(world)
    async with targeting(world) as target:
        failover = target.subscription
        assert isinstance(failover, Failover)
        await target.pick("http")
        world.failure = away()

        async def stale() -> bool:
            return failover.snapshot is not None and failover.snapshot.stale

        await aeventually(stale)
        assert numbers(failover.snapshot) == [1, 2, 3, 4]
        assert failover.error is world.failure
        for number in (1, 2, 3):
            target.observe(instance(number), Outcome.REFUSED, 0.1)
        await until(failover, 1, 2, 3, 4, 21, 22)


async def test_unknown_is_waited_for_and_lost_is_gone_around(world: World) -> None:
    await fill(world)
    world.failure = away()
    async with following(world) as failover:
        async with asyncio.timeout(10):
            assert numbers(await failover.known()) == [21, 22]
        assert used(failover) == ["dc2"]
        world.failure = None
        await until(failover, 1, 2, 3, 4)


async def test_all_lost_is_unknown(world: World) -> None:
    world.failure = world.no_names = away()
    async with following(world) as failover:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(failover.known(), 0.5)
        assert failover.snapshot is None
        assert failover.error is world.failure


async def test_nobody_at_home_is_not_empty_before_the_others_have_spoken(world: World) -> None:
    await world.others["dc3"].put(instance(31))
    async with following(world) as failover:
        assert numbers(await failover.known()) == [31]


async def test_names_are_looked_for_until_the_registry_says(world: World) -> None:
    await fill(world)
    world.no_names = away()
    async with following(world) as failover:
        await until(failover, 1, 2, 3, 4)
        assert failover.reserve == ()
        world.no_names = None
        await show(world, Status.DOWN, 1, 2, 3)
        await until(failover, 1, 2, 3, 4, 21, 22)


async def test_an_unknown_datacenter_is_one_warning_and_taken_when_it_comes(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover_module, "LOOK_AGAIN", 0.05)
    await fill(world)
    async with following(world, "dc9", "dc1", "dc2") as failover:
        await until(failover, 1, 2, 3, 4)

        async def asked_again() -> bool:
            return world.asked >= 3

        await aeventually(asked_again)
        assert [each.getMessage() for each in caplog.records] == [
            f"failover: {world.url} knows no datacenter 'dc9', only dc1, dc2, dc3; the others stay"
        ]
        await show(world, Status.DOWN, 1, 2, 3)
        await until(failover, 1, 2, 3, 4, 21, 22)
        world.others["dc9"] = Commanded("dc9")
        await world.others["dc9"].put(instance(91))
        await until(failover, 1, 2, 3, 4, 91)


async def test_closing_ends_all(world: World) -> None:
    await fill(world)
    before = asyncio.all_tasks()
    async with following(world) as failover:
        await until(failover, 1, 2, 3, 4)
        await show(world, Status.DOWN, 1, 2, 3)
        await until(failover, 1, 2, 3, 4, 21, 22)
        assert world.others["dc3"].inner._store.listeners
    assert not world.others["dc3"].inner._store.listeners
    assert asyncio.all_tasks() == before


async def test_closing_ends_also_when_looking_for_datacenters_fails_by_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hang() -> tuple[str, ...]:
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise away() from None
        raise AssertionError

    monkeypatch.setattr(world, "datacenters", hang)
    async with following(world) as failover:
        await asyncio.wait_for(asked.wait(), 10)
        closing = asyncio.ensure_future(failover.aclose())
        done, _ = await asyncio.wait({closing}, timeout=10)
        assert done


async def test_mistakes_are_said_at_once(world: World) -> None:
    plain = Commanded("plain")
    with pytest.raises(ConfigError, match="commanded://plain has no datacenters"):
        Mesh(plain, failover=["dc2"])
    with pytest.raises(ConfigError, match="failover names 'dc2' twice"):
        Mesh(world, failover=["dc2", "dc3", "dc2"])
    with pytest.raises(ConfigError, match=r"failover_share is 1\.5, not between 0 and 1"):
        Mesh(world, failover_share=1.5)


async def test_scripts_take_the_settings_of_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHKIT_REGISTRY", "memory://scripts")
    monkeypatch.setenv("MESHKIT_FAILOVER", "dc2")
    with pytest.raises(ConfigError, match="memory://scripts has no datacenters"):
        Mesh()
    Mesh(failover=[])


async def test_each_place_has_its_own_list_on_disk(world: World) -> None:
    await fill(world)

    def follow(registry: Registry) -> Subscription:
        return Subscription(registry, SERVICE, SnapshotCache.of(registry.url))

    for lost in (False, True):
        world.failure = away() if lost else None
        for other in world.others.values():
            other.failure = away() if lost else None
        failover = Failover(SERVICE, Places(world, ("dc2",)), follow)
        await until(failover, 1, 2, 3, 4)

        async def ready(failover: Failover = failover) -> bool:
            return len(failover.reserve) == 2

        await aeventually(ready)
        await failover.aclose()
