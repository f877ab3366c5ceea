"""Whom a caller gets: by transport, past those set aside, and all of them rather than nobody."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from meshkit.client.mesh import Mesh
from meshkit.discovery import target as target_module
from meshkit.discovery.balancing import Outcome, RoundRobin
from meshkit.discovery.ejection import Ejections
from meshkit.discovery.ejection.ejections import DRAIN_PAUSE
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import Pick, Route, Target
from meshkit.errors import NoInstances
from meshkit.model import Endpoint, Instance, Status
from tests.discovery.clock import Clock
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
        ejections=Ejections(clock=clock, later=clock.later),
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


def called(
    target: Target, times: int, exclude: Sequence[int] = (), route: Route | None = None
) -> Counter[int]:
    excluded = {instance(each).id for each in exclude}
    found: Counter[int] = Counter()
    for _ in range(times):
        pick = target.try_pick("http", excluded, route=route)
        found[number(pick)] += 1
    return found


class First:
    """A route to the first of them alone."""

    def select(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        return [each for each in instances if each.id == instance(1).id]

    spare = select

    def explain(self, instances: Sequence[Instance]) -> str:
        raise AssertionError("there is somebody")


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
    clock.advance(1)
    trial = target.try_pick("http")
    assert number(trial) == 2
    assert called(target, 10) == {1: 5, 3: 5}  # while the trial lasts, and until a good end
    assert trial
    trial.done(outcome)
    clock.advance(1)
    assert called(target, 10) == {1: 5, 3: 5}  # the second pause is longer
    clock.advance(1)
    trial = target.try_pick("http")
    assert number(trial) == 2
    assert trial
    trial.done(Outcome.OK)
    assert called(target, 6) == {1: 2, 2: 2, 3: 2}


async def test_failures_in_a_row_set_aside_for_all(registry: Commanded, target: Target) -> None:
    await fill(registry, target, 1, 2, 3)
    for _ in range(5):
        end(target, 2, Outcome.TIMEOUT)
    assert called(target, 10) == {1: 5, 3: 5}
    for _ in range(5):
        end(target, 1, Outcome.FAILED)
    assert called(target, 6) == {1: 2, 2: 2, 3: 2}  # panic: more than half


async def test_a_retry_is_no_trial(registry: Commanded, target: Target, clock: Clock) -> None:
    await fill(registry, target, 1, 2, 3)
    end(target, 2, Outcome.REFUSED)
    clock.advance(1)
    assert called(target, 4, exclude=[1]) == {3: 4}


async def test_a_trial_fits_its_call(registry: Commanded, target: Target, clock: Clock) -> None:
    await registry.put(
        instance(1), instance(2, transports=("grpc",)), instance(3, transports=("http", "grpc"))
    )
    await listed(target, 1, 2, 3)
    end(target, 2, Outcome.REFUSED, "grpc")
    end(target, 3, Outcome.REFUSED, "grpc")
    clock.advance(1)
    assert number(target.try_pick("http", route=First())) == 1
    assert number(target.try_pick("http")) == 3
    assert number(target.try_pick("http")) == 1
    assert number(target.try_pick("grpc")) == 2


async def test_who_can_be_probed_is_probed_before_its_trial(
    registry: Commanded, target: Target, clock: Clock
) -> None:
    asked: list[str] = []
    answers: list[OSError | bool] = [OSError("refused"), False, True]

    async def probe(which: Instance, endpoint: Endpoint) -> bool:
        assert endpoint == which.endpoints["http"]
        asked.append(which.id)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def over(count: int) -> None:
        async def ended() -> bool:
            return len(asked) == count and not target._prober._tasks

        await aeventually(ended)

    target.probe_with("http", probe)
    await fill(registry, target, 1, 2)
    end(target, 2, Outcome.REFUSED)
    for count, pause in enumerate((1, 2, 4), start=1):
        clock.advance(pause)
        assert called(target, 5) == {1: 5}  # any of them begins the probe, none is the trial
        await over(count)
    trial = target.try_pick("http")
    assert number(trial) == 2
    assert trial
    trial.done(Outcome.OK)
    assert called(target, 4) == {1: 2, 2: 2}
    assert asked == [instance(2).id] * 3


async def test_no_probe_goes_on_when_another_has_failed(
    registry: Commanded, target: Target, clock: Clock
) -> None:
    async def refused(which: Instance, endpoint: Endpoint) -> bool:
        raise OSError("refused")

    async def hanging(which: Instance, endpoint: Endpoint) -> bool:
        await asyncio.sleep(600)
        return True

    target.probe_with("http", refused)
    target.probe_with("grpc", hanging)
    await registry.put(instance(1), instance(2, transports=("http", "grpc")))
    await listed(target, 1, 2)
    end(target, 2, Outcome.REFUSED)
    clock.advance(1)
    before = asyncio.all_tasks()
    assert called(target, 1) == {1: 1}

    async def ended() -> bool:
        return not target._prober._tasks

    await aeventually(ended)
    assert asyncio.all_tasks() <= before


async def test_closing_ends_a_probe(registry: Commanded, clock: Clock) -> None:
    async with targeting(registry, clock) as target:
        begun = asyncio.Event()

        async def probe(which: Instance, endpoint: Endpoint) -> bool:
            begun.set()
            await asyncio.sleep(60)
            return True

        target.probe_with("http", probe)
        await fill(registry, target, 1, 2)
        end(target, 2, Outcome.REFUSED)
        clock.advance(1)
        target.try_pick("http")
        await asyncio.wait_for(begun.wait(), 10)
    assert not [each for each in asyncio.all_tasks() if "probe" in each.get_name()]


async def test_shares_by_place_are_weights(registry: Commanded, target: Target) -> None:
    target.subscription.shares = {instance(1).id: 0.5, instance(2).id: 1.0, instance(3).id: 0.0}
    await fill(registry, target, 1, 2, 3, 4)
    assert called(target, 50) == {1: 10, 2: 20, 4: 20}
    for each in (1, 2, 4):
        end(target, each, Outcome.REFUSED)
    assert called(target, 4) == {3: 4}  # better than nobody


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
    clock.advance(DRAIN_PAUSE - 1)
    assert called(target, 4) == {2: 4}
    clock.advance(1)
    trial = target.try_pick("http")
    assert number(trial) == 1


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


def lapsed(number: int, **options: Any) -> Instance:
    """As it is read when its registry has not heard of it in time."""
    return replace(instance(number, status=Status.DOWN, **options), lapsed=True)


async def test_who_was_not_heard_of_is_tried_before_a_call_fails(
    registry: Commanded, target: Target
) -> None:
    """After a registry has hung, the one that it still lists as up may have ended."""
    await registry.put(
        instance(1),
        lapsed(2),
        lapsed(3, transports=("grpc",)),
        instance(4, status=Status.DOWN),  # by its own word
    )
    await listed(target, 1, 2, 3, 4)
    assert called(target, 4) == {1: 4}
    end(target, 1, Outcome.REFUSED)
    assert called(target, 4) == {1: 4}  # better than those nobody has heard of
    assert called(target, 4, exclude=[1]) == {2: 4}
    with pytest.raises(NoInstances, match=r"^users: no instance left to try of 2$"):
        called(target, 1, exclude=[1, 2])
    with pytest.raises(NoInstances, match=r"^users: no instance left to try of 1$"):
        called(target, 1, exclude=[1], route=First())


async def test_when_nobody_was_heard_of_all_are_tried(registry: Commanded, target: Target) -> None:
    await registry.put(lapsed(1), lapsed(2))
    await listed(target, 1, 2)
    assert set(called(target, 100)) == {1, 2}
    assert called(target, 2, exclude=[1]) == {2: 2}


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
