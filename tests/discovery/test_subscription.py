"""Following a service while its registry comes, goes, forgets and lies."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from meshkit.discovery import subscription as subscription_module
from meshkit.discovery.cache import SnapshotCache
from meshkit.discovery.subscription import Subscription
from meshkit.model import Snapshot, Status
from tests.discovery.values import SERVICE, Commanded, away, instance, numbers
from tests.support.waiting import aeventually


@pytest.fixture
async def registry(request: pytest.FixtureRequest) -> Commanded:
    return Commanded(request.node.name)


@asynccontextmanager
async def following(
    registry: Commanded, cache: SnapshotCache | None = None
) -> AsyncIterator[Subscription]:
    subscription = Subscription(registry, SERVICE, cache)
    try:
        yield subscription
    finally:
        await subscription.aclose()
        await subscription.aclose()  # twice is safe


async def until(subscription: Subscription, *wanted: int) -> Snapshot:
    """Wait for a fresh list of exactly these."""

    async def found() -> Snapshot | None:
        now = subscription.snapshot
        return now if now and not now.stale and numbers(now) == list(wanted) else None

    result = await aeventually(found)
    assert result is not None
    return result


async def until_stale(subscription: Subscription) -> Snapshot:
    async def found() -> Snapshot | None:
        now = subscription.snapshot
        return now if now and now.stale else None

    result = await aeventually(found)
    assert result is not None
    return result


async def until_sure(subscription: Subscription) -> None:
    """Wait for the end of a doubt."""

    async def sure() -> bool:
        return subscription._confirmation is None

    await aeventually(sure)


async def test_the_list_is_followed(registry: Commanded) -> None:
    await registry.put(instance(1))
    async with following(registry) as subscription:
        assert numbers(await subscription.known()) == [1]
        await registry.put(instance(2))
        await until(subscription, 1, 2)
        await registry.put(instance(1, status=Status.DOWN))
        await aeventually(lambda: up_is(subscription, 2))
        await registry.remove(2)
        assert (await until(subscription, 1)).up == ()
        assert subscription.error is None
        assert registry.watches == 1


async def up_is(subscription: Subscription, *wanted: int) -> bool:
    assert subscription.snapshot
    return subscription.snapshot.up == tuple(instance(number) for number in wanted)


async def test_nobody_registered_is_an_empty_list_and_not_unknown(registry: Commanded) -> None:
    async with following(registry) as subscription:
        assert subscription.snapshot is None
        assert (await subscription.known()).instances == ()


async def test_unknown_stays_unknown_while_the_registry_is_away(registry: Commanded) -> None:
    registry.failure = away()
    await registry.put(instance(1))
    async with following(registry) as subscription:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subscription.known(), 0.3)
        assert subscription.snapshot is None
        assert subscription.error is registry.failure
        registry.failure = None
        assert numbers(await asyncio.wait_for(subscription.known(), 10)) == [1]
        assert subscription.error is None


async def test_the_last_good_list_outlives_the_registry(
    registry: Commanded, caplog: pytest.LogCaptureFixture
) -> None:
    await registry.put(instance(1), instance(2))
    async with following(registry) as subscription:
        good = await subscription.known()
        with caplog.at_level(logging.INFO, "meshkit"):
            registry.failure = away()
            stale = await until_stale(subscription)
            assert stale.instances == good.instances
            assert stale.read_at >= good.read_at
            await registry.remove(1)
            watches = registry.watches

            async def tried_again() -> bool:
                return registry.watches >= watches + 2

            await aeventually(tried_again)
            assert numbers(subscription.snapshot) == [1, 2]
            assert subscription.error is registry.failure
            registry.failure = None
            await until(subscription, 2)
        assert [each.getMessage() for each in caplog.records] == [
            f"users: the registry can't be followed: {away()}; the last good list stays in use",
            f"users: following {registry.url} again",
        ]


async def test_a_bug_in_an_engine_is_a_failure_like_any_other(
    registry: Commanded, caplog: pytest.LogCaptureFixture
) -> None:
    await registry.put(instance(1))
    async with following(registry) as subscription:
        await subscription.known()
        with caplog.at_level(logging.ERROR, "meshkit"):
            registry.failure = ZeroDivisionError("a bug")
            assert numbers(await until_stale(subscription)) == [1]
        assert "watching users failed unexpectedly" in caplog.text
        registry.failure = None
        await until(subscription, 1)


async def test_failures_are_retried_with_pauses(registry: Commanded) -> None:
    registry.failure = away()
    began = time.monotonic()
    async with following(registry):

        async def tried() -> bool:
            return registry.watches >= 4

        await aeventually(tried)
        # Of three pauses, each at least half of 0.2, 0.4 and 0.8 s.
        assert time.monotonic() - began > 0.69


async def test_listeners_hear_every_list_until_they_stop(registry: Commanded) -> None:
    heard: list[Snapshot] = []
    async with following(registry) as subscription:
        stop = subscription.on_change(heard.append)
        await subscription.known()
        await registry.put(instance(1))
        await until(subscription, 1)
        registry.failure = away()
        await until_stale(subscription)
        assert [(numbers(each), each.stale) for each in heard] == [
            ([], False),
            ([1], False),
            ([1], True),
        ]
        stop()
        stop()
        registry.failure = None
        await until(subscription, 1)
        assert len(heard) == 3


async def test_a_large_drop_is_held_until_it_is_confirmed(registry: Commanded) -> None:
    registry.settle = 1.0
    await registry.put(*map(instance, (1, 2, 3)))
    heard: list[list[int]] = []
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)
        subscription.on_change(lambda each: heard.append(numbers(each)))
        await registry.inner.deregister(instance(1).id)
        await until(subscription, 2, 3)
        registry.inner._store.clear()
        await until(subscription)
    assert heard == [[2, 3], [2, 3], []]


async def test_a_registry_that_comes_back_to_its_senses_drops_nobody(registry: Commanded) -> None:
    registry.settle = 2.0
    await registry.put(*map(instance, (1, 2, 3)))
    shortest = 3
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)

        def look(each: Snapshot) -> None:
            nonlocal shortest
            shortest = min(shortest, len(each.up))

        subscription.on_change(look)
        registry.inner._store.clear()
        for number in (3, 1, 2):  # each registers anew
            await asyncio.sleep(0.05)
            await registry.put(instance(number))
        await until_sure(subscription)
        assert numbers(subscription.snapshot) == [1, 2, 3]
    assert shortest == 3


async def test_a_second_loss_is_doubted_for_a_time_of_its_own(registry: Commanded) -> None:
    """As when an agent that takes its node along is restarted twice."""
    registry.settle = 3.0
    await registry.put(*map(instance, (1, 2, 3)))
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)
        heard: list[list[int]] = []
        subscription.on_change(lambda each: heard.append(numbers(each)))
        first = time.monotonic()
        registry.inner._store.clear()
        await asyncio.sleep(1)
        await registry.put(*map(instance, (1, 2, 3)))
        await asyncio.sleep(1.4)
        registry.inner._store.clear()
        await asyncio.sleep(first + registry.settle + 0.5 - time.monotonic())
        await registry.put(*map(instance, (1, 2, 3)))
        await until_sure(subscription)
        assert numbers(subscription.snapshot) == [1, 2, 3]
    assert set(map(tuple, heard)) == {(1, 2, 3)}


async def test_a_registry_that_comes_back_empty_after_long_drops_nobody(
    registry: Commanded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription_module, "OLD", 0.01)
    registry.settle = 1.0
    await registry.put(*map(instance, (1, 2)))
    async with following(registry) as subscription:
        await until(subscription, 1, 2)
        heard: list[int] = []
        subscription.on_change(lambda each: heard.append(len(each.up)))
        registry.failure = away()
        await until_stale(subscription)
        registry.inner._store.clear()
        await asyncio.sleep(0.1)  # the list is older than OLD now
        registry.failure = None

        async def followed_again() -> bool:
            return subscription.error is None

        await aeventually(followed_again)
        await registry.put(*map(instance, (1, 2)))  # each registers anew
        await until_sure(subscription)
        assert numbers(subscription.snapshot) == [1, 2]
    assert set(heard) == {2}


async def test_the_doubt_ends_though_the_list_goes_on_changing(registry: Commanded) -> None:
    """Each change of a busy service must not put the confirmation off for ever."""
    registry.settle = 0.5
    await registry.put(*map(instance, (1, 2, 3)))
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)
        registry.inner._store.clear()

        async def confirmed() -> bool:
            version = str(asyncio.get_running_loop().time())
            await registry.put(*(replace(instance(each), version=version) for each in (4, 5)))
            return numbers(subscription.snapshot) == [4, 5]

        await aeventually(confirmed, within=5, every=0.1)


async def test_a_drop_that_can_not_be_confirmed_stays_doubted(registry: Commanded) -> None:
    registry.settle = 1.0
    await registry.put(*map(instance, (1, 2, 3)))
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)
        registry.inner._store.clear()

        async def doubted() -> bool:
            return subscription._confirmation is not None

        await aeventually(doubted)
        registry.failure = away()
        assert numbers(await until_stale(subscription)) == [1, 2, 3]
        registry.failure = None
        await until(subscription)


async def test_a_registry_that_can_not_err_is_believed_at_once(registry: Commanded) -> None:
    assert registry.settle == 0
    await registry.put(*map(instance, (1, 2, 3)))
    heard: list[list[int]] = []
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)
        subscription.on_change(lambda each: heard.append(numbers(each)))
        registry.inner._store.clear()
        await until(subscription)
    assert heard == [[]]


@pytest.fixture
def cache() -> SnapshotCache:
    made = SnapshotCache.of("commanded://cache")
    assert made is not None
    return made


async def test_a_consumer_starts_with_the_list_on_disk_while_the_registry_is_away(
    registry: Commanded, cache: SnapshotCache
) -> None:
    await registry.put(instance(1), instance(2))
    async with following(registry, cache) as subscription:
        good = await subscription.known()
    registry.failure = away()
    async with following(registry, cache) as subscription:
        at_once = await subscription.known()
        assert at_once.stale
        assert at_once.instances == good.instances
        assert at_once.read_at >= good.read_at

        async def noticed() -> bool:
            return subscription.error is not None

        await aeventually(noticed)
        assert subscription.snapshot == at_once
        registry.failure = None
        await registry.put(instance(3))
        await until(subscription, 1, 2, 3)


async def test_the_list_is_written_soon_and_not_at_every_change(
    registry: Commanded, cache: SnapshotCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[int]] = []
    save = cache.save

    def counting(each: Snapshot) -> None:
        written.append(numbers(each))
        save(each)

    monkeypatch.setattr(cache, "save", counting)
    async with following(registry, cache) as subscription:
        for number in range(20):
            await registry.put(instance(number))
        await until(subscription, *range(20))

        async def saved() -> bool:
            return bool(written)

        await aeventually(saved)
        loaded = cache.load(SERVICE)
        assert numbers(loaded) == list(range(20))
    assert len(written) <= 5


async def test_a_stale_list_does_not_overwrite_the_file(
    registry: Commanded, cache: SnapshotCache
) -> None:
    await registry.put(instance(1))
    async with following(registry, cache) as subscription:
        await until(subscription, 1)
    before = cache.load(SERVICE)
    registry.failure = away()
    async with following(registry, cache) as subscription:
        await until_stale(subscription)
        await asyncio.sleep(0.7)
    assert cache.load(SERVICE) == before


async def test_closing_ends_the_watch(registry: Commanded) -> None:
    async with following(registry) as subscription:
        await subscription.known()
        assert registry.inner._store.listeners
    assert not registry.inner._store.listeners
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert "meshkit-subscription-users" not in names


async def test_closing_ends_also_when_the_engine_fails_at_closing(
    request: pytest.FixtureRequest,
) -> None:
    class Clinging(Commanded):
        async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
            try:
                async for each in super().watch(service):
                    yield each
            finally:
                raise away()

    async with following(Clinging(request.node.name)) as subscription:
        await subscription.known()
        await asyncio.wait_for(subscription.aclose(), 10)


async def test_closing_ends_also_when_a_confirmation_fails_by_it(
    registry: Commanded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def hang(_: str) -> Snapshot:
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise away() from None
        raise AssertionError

    registry.settle = 0.01
    await registry.put(*map(instance, (1, 2)))
    async with following(registry) as subscription:
        await until(subscription, 1, 2)
        monkeypatch.setattr(registry, "instances", hang)
        registry.inner._store.clear()
        await asyncio.wait_for(asked.wait(), 10)
        closing = asyncio.ensure_future(subscription.aclose())
        done, _ = await asyncio.wait({closing}, timeout=10)
        assert done


async def test_an_old_list_on_disk_is_replaced_and_not_merged(
    registry: Commanded, cache: SnapshotCache
) -> None:
    gone = Snapshot(
        service=SERVICE, instances=(instance(8), instance(9)), read_at=time.time() - 7 * 86400
    )
    cache.save(gone)
    registry.settle = 60.0
    await registry.put(instance(1))
    async with following(registry, cache) as subscription:
        await until(subscription, 1)


async def test_what_the_registry_says_goes_before_the_disk(
    registry: Commanded, cache: SnapshotCache
) -> None:
    """A call that comes first must not be sent after instances that have been replaced."""
    cache.save(Snapshot(service=SERVICE, instances=()))
    await registry.put(instance(1))
    async with following(registry, cache) as subscription:
        assert subscription.snapshot is None
        first = await subscription.known()
        assert numbers(first) == [1]
        assert not first.stale


async def test_a_registry_that_is_silent_does_not_keep_the_disk_from_callers(
    registry: Commanded, cache: SnapshotCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Commanded):
        async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
            await asyncio.Event().wait()
            yield Snapshot(service=service, instances=())

    monkeypatch.setattr(subscription_module, "SILENCE", 0.1)
    cache.save(Snapshot(service=SERVICE, instances=(instance(1),)))
    async with following(Silent("silent"), cache) as subscription:
        first = await subscription.known()
        assert numbers(first) == [1]
        assert first.stale


async def test_a_list_that_may_be_incomplete_is_completed_from_disk(
    registry: Commanded, cache: SnapshotCache
) -> None:
    """As of several registries, one of which has been away since the start."""

    class Incomplete(Commanded):
        complete = False

        async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
            async for each in super().watch(service):
                yield replace(each, stale=not self.complete)

    cache.save(Snapshot(service=SERVICE, instances=(instance(8), instance(9))))
    partly = Incomplete("partly")
    await partly.put(instance(1), instance(9))
    async with following(partly, cache) as subscription:
        await subscription.known()

        async def shown(*wanted: int) -> bool:
            return numbers(subscription.snapshot) == list(wanted)

        await aeventually(lambda: shown(1, 8, 9))
        assert (await until_stale(subscription)).stale
        await partly.remove(9)  # it was listed, so this is a departure
        await aeventually(lambda: shown(1, 8))
        partly.complete = True
        await partly.put(instance(2))
        await until(subscription, 1, 2)


@pytest.mark.parametrize("error", [away(), ZeroDivisionError("a bug")])
async def test_a_confirmation_is_tried_until_it_is_answered(
    registry: Commanded, error: Exception
) -> None:
    registry.settle = 0.1
    await registry.put(*map(instance, (1, 2, 3)))
    async with following(registry) as subscription:
        await until(subscription, 1, 2, 3)
        answer, refusals = registry.instances, 2

        async def refuse(service: str) -> Snapshot:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise error  # the watch goes on: only this read is refused
            return await answer(service)

        registry.instances = refuse  # type: ignore[method-assign]
        registry.inner._store.clear()
        await until(subscription)
        assert refusals == 0
