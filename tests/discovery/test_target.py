"""Whom a caller gets: by transport, past those set aside, and all of them rather than nobody."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from meshkit.client.mesh import Mesh
from meshkit.discovery import target as target_module
from meshkit.discovery.balancing import Outcome, RoundRobin
from meshkit.discovery.outlier import Ejections
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import DRAIN_PAUSE, Pick, Target
from meshkit.errors import NoInstances
from meshkit.model import Instance, Status
from tests.discovery.test_outlier import Clock
from tests.discovery.values import SERVICE, Commanded, away, instance, numbers
from tests.servers import Consul
from tests.support.waiting import aeventually


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def registry(request: pytest.FixtureRequest) -> Commanded:
    return Commanded(request.node.name)


@asynccontextmanager
async def targeting(registry: Commanded, clock: Clock) -> AsyncIterator[Target]:
    made = Target(
        Subscription(registry, SERVICE, None),
        balancer=RoundRobin,  # whose shares can be counted
        slow_start=0,
        ejections=Ejections(clock),
    )
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture
async def target(registry: Commanded, clock: Clock) -> AsyncIterator[Target]:
    async with targeting(registry, clock) as made:
        yield made


async def listed(target: Target, *wanted: int) -> None:
    async def found() -> bool:
        now = target.subscription.snapshot
        return now is not None and numbers(now) == list(wanted)

    await aeventually(found)


async def fill(registry: Commanded, target: Target, *numbers: int) -> None:
    await registry.put(*map(instance, numbers))
    await listed(target, *numbers)


def number(pick: Pick | None) -> int:
    assert pick is not None
    return int(pick.instance.id.removeprefix("users-"))


def called(target: Target, times: int, exclude: Sequence[int] = ()) -> Counter[int]:
    excluded = {instance(each).id for each in exclude}
    found: Counter[int] = Counter()
    for _ in range(times):
        pick = target.try_pick("http", excluded)
        found[number(pick)] += 1
    return found


def end(target: Target, wanted: int, outcome: Outcome, transport: str = "http") -> None:
    """Call the one of this number, whoever's turn it is, and end the call."""
    assert target.subscription.snapshot
    others = {each.id for each in target.subscription.snapshot.instances}
    pick = target.try_pick(transport, others - {instance(wanted).id})
    assert number(pick) == wanted
    assert pick
    pick.done(outcome)


async def test_the_first_pick_waits_for_the_list(registry: Commanded, clock: Clock) -> None:
    await registry.put(instance(1))
    async with targeting(registry, clock) as target:
        assert target.try_pick("http") is None
        pick = await target.pick("http")
        assert (pick.instance, pick.endpoint) == (instance(1), instance(1).endpoints["http"])


async def test_turns_are_even(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2, 3)
    assert called(target, 30) == {1: 10, 2: 10, 3: 10}


async def test_each_transport_has_its_own_instances(registry: Commanded, target: Target) -> None:
    await registry.put(
        instance(1), instance(2, transports=("grpc",)), instance(3, transports=("http", "grpc"))
    )
    await listed(target, 1, 2, 3)
    assert called(target, 4) == {1: 2, 3: 2}
    picked = [target.try_pick("grpc") for _ in range(4)]
    assert Counter(map(number, picked)) == {2: 2, 3: 2}
    assert picked[0]
    assert picked[0].endpoint == picked[0].instance.endpoints["grpc"]


@pytest.mark.parametrize("outcome", [Outcome.REFUSED, Outcome.WRONG])
async def test_a_refused_connection_sets_aside_at_once(
    registry: Commanded, target: Target, clock: Clock, outcome: Outcome
) -> None:
    await fill(registry, target, 1, 2, 3)
    end(target, 2, outcome)
    assert called(target, 10) == {1: 5, 3: 5}
    clock.now += 1
    assert set(called(target, 3)) == {1, 2, 3}
    end(target, 2, outcome)
    clock.now += 1
    assert set(called(target, 10)) == {1, 3}  # the second pause is longer
    clock.now += 1
    assert set(called(target, 3)) == {1, 2, 3}


async def test_setting_aside_holds_for_all_transports(registry: Commanded, target: Target) -> None:
    both = ("http", "grpc")
    await registry.put(instance(1, transports=both), instance(2, transports=both))
    await listed(target, 1, 2)
    assert target.try_pick("grpc")
    assert target.try_pick("http")
    end(target, 1, Outcome.REFUSED)
    assert {number(target.try_pick("grpc")) for _ in range(4)} == {2}


async def test_a_good_answer_forgives(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2)
    end(target, 1, Outcome.REFUSED)
    assert called(target, 4) == {2: 4}
    end(target, 1, Outcome.OK)
    assert called(target, 4) == {1: 2, 2: 2}


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.FAILED, Outcome.CANCELLED])
async def test_other_outcomes_set_nobody_aside(
    registry: Commanded, target: Target, outcome: Outcome
) -> None:
    await fill(registry, target, 1, 2)
    end(target, 1, outcome)
    assert called(target, 4) == {1: 2, 2: 2}


async def test_a_leaving_instance_is_not_called_again(
    registry: Commanded, target: Target, clock: Clock
) -> None:
    await fill(registry, target, 1, 2)
    end(target, 1, Outcome.DRAINING)
    clock.now += DRAIN_PAUSE - 1
    assert called(target, 4) == {2: 4}
    clock.now += 1
    assert called(target, 4) == {1: 2, 2: 2}


async def test_when_all_are_aside_all_are_used(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2, 3)
    for each in (1, 2, 3):
        end(target, each, Outcome.REFUSED)
    assert called(target, 6) == {1: 2, 2: 2, 3: 2}


async def test_one_that_is_aside_is_better_than_nobody(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2)
    end(target, 1, Outcome.REFUSED)
    assert called(target, 2, exclude=[2]) == {1: 2}


async def test_a_retry_excludes_what_was_tried(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2, 3)
    assert called(target, 6, exclude=[1, 3]) == {2: 6}
    with pytest.raises(NoInstances, match=r"^users: no instance left to try of 3$"):
        called(target, 1, exclude=[1, 2, 3])


async def test_who_leaves_takes_its_record_along(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2)
    end(target, 1, Outcome.REFUSED)
    await registry.remove(1)
    await listed(target, 2)
    await registry.put(instance(1))
    await listed(target, 1, 2)
    assert called(target, 4) == {1: 2, 2: 2}


async def test_only_instances_that_are_up_are_called(registry: Commanded, target: Target) -> None:
    await registry.put(
        instance(1),
        instance(2, status=Status.DOWN),
        instance(3, status=Status.DRAINING),
        instance(4, status=Status.STARTING),
    )
    await listed(target, 1, 2, 3, 4)
    assert called(target, 4) == {1: 4}


async def test_nobody_to_call_says_why(registry: Commanded, target: Target) -> None:
    await listed(target)
    with pytest.raises(NoInstances, match=r"^users: no instance is registered$"):
        await target.pick("http")
    await registry.put(instance(1, status=Status.DOWN), instance(2, transports=("grpc",)))
    await listed(target, 1, 2)
    with pytest.raises(NoInstances, match=r"^users: none of 2 instances is up and serves http$"):
        await target.pick("http")
    registry.failure = away()

    async def stale() -> bool:
        now = target.subscription.snapshot
        return now is not None and now.stale

    await aeventually(stale)
    with pytest.raises(NoInstances, match=r"\(list is \d+ s old: the registry is away\)$"):
        await target.pick("http")


@pytest.mark.consul
async def test_a_mesh_names_its_registry(consul: Consul) -> None:
    async with Mesh(consul.url) as mesh:
        text = f"^users: no instance is registered in {consul.url}$"
        with pytest.raises(NoInstances, match=text):
            await mesh.http("users").get("/")


async def test_calls_go_on_with_the_last_good_list(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2)
    registry.failure = away()

    async def lost() -> bool:
        return target.subscription.error is not None

    await aeventually(lost)
    assert called(target, 4) == {1: 2, 2: 2}


async def test_an_unknown_list_is_waited_for_and_then_an_error_that_says_why(
    registry: Commanded, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "FIRST_LIST_WAIT", 0.2)
    registry.failure = away()
    async with targeting(registry, clock) as target:
        with pytest.raises(
            NoInstances, match=r"^users: no list of instances: commanded:// does not answer$"
        ):
            await target.pick("http")


async def test_listeners_hear_the_instances_until_they_stop(
    registry: Commanded, target: Target
) -> None:
    heard: list[list[Instance]] = []
    stop: Callable[[], None] = target.on_change(lambda each: heard.append(list(each)))
    await fill(registry, target, 1)
    stop()
    await fill(registry, target, 1, 2)
    assert heard[-1] == [instance(1)]


async def test_picks_are_fair_while_instances_come_and_go(
    registry: Commanded, target: Target
) -> None:
    await fill(registry, target, 0, 1)
    counts: Counter[int] = Counter()
    for turn in range(2, 12):
        await registry.put(instance(turn))
        await listed(target, 0, 1, turn)
        counts += called(target, 6)
        await registry.remove(turn)
        await listed(target, 0, 1)
    assert abs(counts[0] - counts[1]) <= 1
    assert all(counts[turn] == 2 for turn in range(2, 12))
