"""Several registries as one: the contract, and what happens while one of them is away."""

import asyncio
import logging
import secrets
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshkit.errors import LeaseLost, RegistryDenied, RegistryError, RegistryUrlError
from meshkit.model import Endpoint, Instance, ServiceInfo, Snapshot
from meshkit.registry import Lease, Registry, open_registry
from meshkit.registry.memory import MemoryRegistry
from meshkit.registry.several import Several, departures
from meshkit.registry.several.member import Member
from meshkit.registry.several.upkeep import LONGEST_TTL, MEMBER_LIMIT
from meshkit.testing.registry_contract import Opener, RegistryContract
from meshkit.testing.registry_fixtures import has, make
from meshkit.testing.watched import Watched
from tests.discovery.values import SERVICE, Commanded, away, instance, numbers
from tests.servers import Consul, ZooKeeper
from tests.support.processes import environment
from tests.support.waiting import aeventually


class TestTwoInMemory(RegistryContract):
    @pytest.fixture
    def opener(self) -> Opener:
        name = secrets.token_hex(4)
        return lambda: open_registry(f"memory://{name}-a memory://{name}-b")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        assert isinstance(registrar, Several)
        for member in registrar._members:
            await member.registry.deregister(instance.id)


@pytest.mark.consul
class TestLocalAndConsul(RegistryContract):
    @pytest.fixture
    def opener(self, tmp_path: Path, consul: Consul) -> Opener:
        self.agent = consul
        return lambda: open_registry(f"local://?dir={tmp_path} {consul.url}")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        assert isinstance(registrar, Several)
        self.agent.put(f"/v1/agent/service/deregister/{instance.id}")
        await registrar._members[0].registry.deregister(instance.id)


@pytest.mark.zookeeper
@pytest.mark.consul
class TestZooKeeperAndConsul(RegistryContract):
    @pytest.fixture
    def opener(self, zookeeper: ZooKeeper, consul: Consul) -> Opener:
        path = secrets.token_hex(4)
        return lambda: open_registry(f"{zookeeper.url}/{path} {consul.url}")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        assert isinstance(registrar, Several)
        for member in registrar._members:
            await member.registry.deregister(instance.id)


class Faulty(Commanded):
    """A registry that fails or hangs on command, also when it is written to.

    Attributes:
        hung: while it is set nothing is answered.
        writes: what was asked for, in order.
    """

    def __init__(self, name: str, *, ttl: float = 30.0) -> None:
        super().__init__(name)
        self.hung = False
        self.writes: list[str] = []
        self._ttl = ttl

    async def _answer(self, what: str) -> None:
        self.writes.append(what)
        while self.hung:
            await asyncio.sleep(0.01)
        if self.failure is not None:
            raise self.failure

    async def register(self, instance: Instance) -> Lease:
        await self._answer("register")
        await self.inner.register(instance)
        return Lease(instance_id=instance.id, ttl=self._ttl)

    async def renew(self, lease: Lease) -> None:
        await self._answer("renew")
        await self.inner.renew(lease)

    async def deregister(self, instance_id: str) -> None:
        await self._answer("deregister")
        await self.inner.deregister(instance_id)

    async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
        while self.hung:
            await asyncio.sleep(0.01)
        async for each in super().watch(service):
            yield each

    @property
    def ids(self) -> list[str]:
        return sorted(self.inner._store.instances)


@pytest.fixture
def old(request: pytest.FixtureRequest) -> Faulty:
    return Faulty(f"{request.node.name}-old", ttl=20.0)


@pytest.fixture
def new(request: pytest.FixtureRequest) -> Faulty:
    return Faulty(f"{request.node.name}-new", ttl=30.0)


@pytest.fixture
async def both(old: Faulty, new: Faulty) -> AsyncIterator[Several]:
    async with Several([Member(old, registers=True), Member(new, registers=True)]) as both:
        yield both


def text(records: list[logging.LogRecord]) -> list[str]:
    return [each.getMessage() for each in records if each.name == "meshkit.registry"]


# --- opening --------------------------------------------------------------------------------------


async def test_white_space_separates_several(tmp_path: Path) -> None:
    url = f"\n  memory://a\t{open_registry(f'local://?dir={tmp_path}').url}\n"
    async with open_registry(url) as registry:
        assert isinstance(registry, Several)
        assert registry.url.startswith("memory://a local://")
        assert registry.peer is None
        assert not registry.read_only
        assert registry.propagation == 0.2
    async with open_registry(" memory://alone ") as alone:
        assert isinstance(alone, MemoryRegistry)


async def test_passwords_of_all_are_masked() -> None:
    url = "consul://127.0.0.1:8500?token=hunter2 consul://10.0.0.9:8500?token=hunter3"
    async with open_registry(url) as registry:
        assert "hunter" not in registry.url
        assert "hunter" not in repr(vars(registry))
        assert registry.url.count("***") == 2
        assert registry.peer == Endpoint("10.0.0.9", 8500)  # the route to it tells our address


async def test_a_member_that_is_only_read() -> None:
    async with open_registry("memory://read?register=false memory://written") as registry:
        await registry.register(instance(1))
        assert numbers(await open_registry("memory://read").instances(SERVICE)) == []
        await open_registry("memory://read").register(instance(2))
        assert numbers(await registry.instances(SERVICE)) == [1, 2]
        await registry.deregister(instance(1).id)
        await registry.deregister(instance(2).id)
        assert numbers(await registry.instances(SERVICE)) == [2]
    for url in (
        "memory://read?register=false",
        "static://x=1.1.1.1:1 memory://read?register=FALSE",
    ):
        async with open_registry(url) as registry:
            assert registry.read_only
            with pytest.raises(RegistryError, match="read-only"):
                await registry.register(instance(1))


async def test_a_read_only_engine_is_only_read() -> None:
    async with open_registry("static://users=127.0.0.1:1 memory://beside") as registry:
        assert not registry.read_only
        await registry.register(instance(1))
        assert len((await registry.instances(SERVICE)).instances) == 2


@pytest.mark.parametrize(
    "how", [["--registry", "{a}", "--registry", "{b}"], ["--registry", "{a} {b}"]]
)
def test_the_option_may_be_repeated(tmp_path: Path, how: list[str]) -> None:
    a, b = (f"local://{name}?dir={tmp_path}" for name in "ab")
    arguments = [each.format(a=a, b=b) for each in how]
    shown = subprocess.run(
        [sys.executable, "-m", "meshkit", "ps", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"no instance is registered in {a} {b}" in shown.stdout


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://a nowhere://b", "unknown registry scheme 'nowhere://'"),
        ("memory://a memory://a", "it stands there twice"),
        ("memory://a memory://b?register=no", "register is true or false, not 'no'"),
        ("consul://h?token=my secret", "number 2 of them has no scheme"),
        ("", "malformed registry URL ''"),
        ("  ", "malformed registry URL"),
    ],
)
def test_mistakes_are_said_in_one_line(url: str, message: str) -> None:
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(url)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


# --- registering ----------------------------------------------------------------------------------


async def test_the_shortest_lease_counts(both: Several, old: Faulty, new: Faulty) -> None:
    lease = await both.register(instance(1))
    assert (lease.instance_id, lease.ttl) == (instance(1).id, 20.0)
    assert old.ids == new.ids == [instance(1).id]


async def test_one_is_enough_and_the_other_is_filled_later(
    both: Several, old: Faulty, new: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    old.failure = away()
    with caplog.at_level(logging.INFO, "meshkit.registry"):
        lease = await both.register(instance(1))
        assert lease.ttl == LONGEST_TTL  # so that the other is tried again soon, and kept then
        for _ in range(3):
            await both.renew(lease)
        assert (old.ids, new.ids) == ([], [instance(1).id])
        old.failure = None
        await both.renew(lease)
        await both.renew(lease)
    assert old.ids == [instance(1).id]
    assert old.writes == [*["register"] * 5, "renew"]
    assert text(caplog.records) == [
        f"{old.url}, one of several registries, fails: {away()}",
        f"{old.url} works again",
    ]


async def test_none_is_an_error_that_names_all(both: Several, old: Faulty, new: Faulty) -> None:
    old.failure, new.failure = RegistryDenied("old says no"), RegistryDenied("new says no")
    with pytest.raises(RegistryDenied, match=r"^old says no; new says no$"):
        await both.register(instance(1))
    old.failure = new.failure = None
    lease = await both.register(instance(1))
    old.failure = new.failure = away()
    with pytest.raises(RegistryError, match="does not answer"):
        await both.renew(lease)
    old.failure = new.failure = None
    await both.renew(lease)


async def test_a_lease_lost_in_one_is_registered_anew_at_once(
    both: Several, old: Faulty, new: Faulty
) -> None:
    lease = await both.register(instance(1))
    new.inner._store.clear()
    await both.renew(lease)
    assert new.ids == [instance(1).id]
    assert old.writes == ["register", "renew"]
    new.inner._store.clear()
    old.failure = away()
    with pytest.raises(LeaseLost):
        await both.renew(lease)  # nobody holds it
    assert (await both.register(instance(1))).ttl == LONGEST_TTL
    assert new.ids == [instance(1).id]


async def test_a_hung_member_holds_nobody_up(both: Several, old: Faulty, new: Faulty) -> None:
    old.hung = True
    async with asyncio.timeout(MEMBER_LIMIT - 1):
        lease = await both.register(instance(1))
        await both.renew(lease)
        await both.renew(lease)
    assert new.writes == ["register", "renew", "renew"]
    assert old.writes == ["register"]  # one write at a time
    old.hung = False

    async def arrived() -> bool:
        return old.ids == [instance(1).id]

    await aeventually(arrived)
    await both.renew(lease)
    assert old.writes == ["register", "renew"]


async def test_a_hung_member_is_given_up_after_its_limit(
    both: Several, old: Faulty, new: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    old.hung = True
    lease = await both.register(instance(1))

    async def tried_again() -> bool:
        await both.renew(lease)
        return old.writes == ["register"] * 2

    await aeventually(tried_again, every=0.2)
    assert text(caplog.records) == [
        f"{old.url}, one of several registries, fails: {old.url}: no answer within 5 s"
    ]


async def test_deregistering_goes_to_all_and_says_who_failed(
    both: Several, old: Faulty, new: Faulty
) -> None:
    await both.register(instance(1))
    old.failure = away()
    with pytest.raises(RegistryError, match="does not answer"):
        await both.deregister(instance(1).id)
    assert (old.ids, new.ids) == ([instance(1).id], [])
    await both.register(instance(2))
    old.failure, old.hung = None, True
    async with asyncio.timeout(3):
        with pytest.raises(RegistryError, match="no answer within"):
            await both.deregister(instance(2).id)
    assert new.ids == []


@pytest.mark.parametrize("pause", [0.0, 0.1])
async def test_nothing_is_registered_after_the_deregistration(
    both: Several, old: Faulty, new: Faulty, pause: float
) -> None:
    """Not by what hangs in the background, nor by a call that was under way."""
    old.hung = True
    registering = asyncio.create_task(both.register(instance(1)))
    await asyncio.sleep(pause)
    leaving = asyncio.create_task(both.deregister(instance(1).id))
    await asyncio.sleep(0.1)
    old.hung = False
    await asyncio.gather(registering, leaving, return_exceptions=True)
    await asyncio.sleep(0.2)
    assert old.ids == new.ids == []
    with pytest.raises(LeaseLost):
        await both.renew(Lease(instance_id=instance(1).id, ttl=9.0))
    assert old.ids == new.ids == []


async def test_closing_ends_what_hangs(old: Faulty, new: Faulty) -> None:
    before = asyncio.all_tasks()
    old.hung = True
    async with Several([Member(old, registers=True), Member(new, registers=True)]) as both:
        await both.register(instance(1))
    assert asyncio.all_tasks() == before
    old.hung = False
    await asyncio.sleep(0.05)
    assert old.ids == []


async def test_a_bug_in_one_engine_is_a_failure_like_any_other(
    both: Several, old: Faulty, new: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    old.failure = ZeroDivisionError("a bug")
    await both.register(instance(1))
    assert new.ids == [instance(1).id]
    assert "failed unexpectedly" in caplog.text


async def test_what_one_says_of_an_unlisted_instance_is_passed_on(
    both: Several, new: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reason() -> str:
        return "its node was refused"

    assert await both.why_unlisted() == ""
    monkeypatch.setattr(new, "why_unlisted", reason)
    assert await both.why_unlisted() == f"{new.url}: its node was refused"


# --- watching -------------------------------------------------------------------------------------


def shows(*wanted: int, stale: bool = False) -> Any:
    return lambda snapshot: numbers(snapshot) == list(wanted) and snapshot.stale is stale


async def test_the_list_is_the_union(both: Several, old: Faulty, new: Faulty) -> None:
    await old.put(instance(1), instance(2))
    await new.put(instance(2), instance(3))
    async with Watched(both.watch(SERVICE)) as watched:
        assert shows(1, 2, 3)(await watched.next())
        await old.remove(2)
        await watched.nothing(seconds=0.2)  # the other still lists it
        await new.remove(2)
        await watched.until(shows(1, 3))


async def test_the_earlier_member_is_believed(both: Several, old: Faulty, new: Faulty) -> None:
    heavy, light = make(SERVICE, "001", weight=9), make(SERVICE, "001", weight=2)
    await new.put(light)
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(has(light))
        await old.put(heavy)
        await watched.until(has(heavy))
        old.failure = away()  # what is known of it is older than what the other says now
        assert (await watched.until(has(light))).stale


async def test_one_that_fails_keeps_its_list_and_the_other_goes_on(
    both: Several, old: Faulty, new: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    await old.put(instance(1))
    await new.put(instance(2))
    with caplog.at_level(logging.INFO, "meshkit.registry"):
        async with Watched(both.watch(SERVICE)) as watched:
            fresh = await watched.until(shows(1, 2))
            old.failure = away()
            stale = await watched.until(shows(1, 2, stale=True))
            assert stale.read_at >= fresh.read_at
            await old.remove(1)
            await new.put(instance(3))
            await watched.until(shows(1, 2, 3, stale=True))
            watches = old.watches

            async def tried() -> bool:
                return old.watches >= watches + 2

            await aeventually(tried)
            assert shows(1, 2, 3, stale=True)(await both.instances(SERVICE))
            old.failure = None
            await watched.until(shows(2, 3))
    assert text(caplog.records) == [
        f"{old.url}, one of several registries, fails: {away()}",
        f"{old.url} works again",
    ]


async def test_none_ends_the_watch_and_the_next_one_remembers(
    both: Several, old: Faulty, new: Faulty
) -> None:
    await old.put(instance(1))
    await new.put(instance(2))
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows(1, 2))
        old.failure = new.failure = away()
        with pytest.raises(RegistryError, match="does not answer"):
            await watched.until(shows())
    new.failure = None
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows(1, 2, stale=True))


async def test_who_leaves_while_one_is_away_is_gone(
    both: Several, old: Faulty, new: Faulty
) -> None:
    """What is away lists it for as long as it is away; it would be called all that time."""
    await both.register(instance(1))
    await both.register(instance(2))
    await old.put(instance(3))
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows(1, 2, 3))
        old.failure = away()
        await watched.until(shows(1, 2, 3, stale=True))
        await new.remove(1)
        await watched.until(shows(2, 3, stale=True))
        assert shows(2, 3, stale=True)(await both.instances(SERVICE))
        await new.put(instance(1))  # it was not gone for good
        await watched.until(shows(1, 2, 3, stale=True))
        await new.remove(2)
        await old.remove(2)
        await watched.until(shows(1, 3, stale=True))
        old.failure = None
        await watched.until(shows(1, 3))


async def test_who_left_just_before_one_was_found_away_is_gone(
    both: Several, old: Faulty, new: Faulty
) -> None:
    """One that hangs is noticed late."""
    await both.register(instance(1))
    await both.register(instance(2))
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows(1, 2))
        await new.remove(1)
        await watched.nothing(seconds=0.2)  # nobody knows that the other hangs
        old.failure = away()
        await watched.until(shows(2, stale=True))


async def test_who_was_in_one_only_stays_while_it_is_away(
    both: Several, old: Faulty, new: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was listed long after another one let it go was alive."""
    monkeypatch.setattr(departures, "NOTICED", 0.1)
    await both.register(instance(1))
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows(1))
        await new.remove(1)  # as when it may not register there any more
        await watched.nothing(seconds=0.3)
        old.failure = away()
        await watched.until(shows(1, stale=True))
        assert shows(1, stale=True)(await both.instances(SERVICE))


async def test_one_that_comes_back_empty_does_not_speak_for_one_that_is_away(
    both: Several, old: Faulty, new: Faulty
) -> None:
    await both.register(instance(1))
    await both.register(instance(2))
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows(1, 2))
        old.failure = away()
        await watched.until(shows(1, 2, stale=True))
        new.failure = away()
        with pytest.raises(RegistryError, match="does not answer"):
            await watched.until(shows())
    new.inner._store.clear()
    new.failure = None
    async with Watched(both.watch(SERVICE)) as watched:
        assert shows(1, 2, stale=True)(await watched.next())


async def test_departures_are_forgotten_with_the_lists(
    both: Several, old: Faulty, new: Faulty
) -> None:
    async with Watched(both.watch(SERVICE)) as watched:
        await watched.until(shows())
        for _ in range(3):
            await both.register(instance(1))
            await watched.until(shows(1))
            await both.deregister(instance(1).id)
            await watched.until(shows())
    assert not both._departures[SERVICE]._left_at


async def test_a_watch_ends_also_when_an_engine_fails_at_closing(old: Faulty, new: Faulty) -> None:
    class Clinging(Faulty):
        async def watch(self, service: str) -> AsyncGenerator[Snapshot, None]:
            try:
                async for each in super().watch(service):
                    yield each
            except asyncio.CancelledError:
                raise away() from None

    clinging = Clinging("clinging")
    async with Several([Member(clinging, registers=True), Member(new, registers=True)]) as both:
        await new.put(instance(1))
        watch = both.watch(SERVICE)
        await anext(watch)
        async with asyncio.timeout(10):
            await watch.aclose()


async def test_all_away_for_long_is_one_line_each(
    both: Several, old: Faulty, new: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    """Each watch of all ends at once, and whoever wants it begins it anew."""
    old.failure = new.failure = away()
    with caplog.at_level(logging.INFO, "meshkit.registry"):
        for service in (SERVICE, SERVICE, "others", SERVICE):
            with pytest.raises(RegistryError, match="does not answer"):
                await anext(both.watch(service))
        old.failure = new.failure = None
        for service in (SERVICE, "others"):
            async with Watched(both.watch(service)) as watched:
                await watched.until(lambda snapshot: not snapshot.stale)
    assert sorted(text(caplog.records)) == [
        f"{new.url} works again",
        f"{new.url}, one of several registries, fails: {away()}",
        f"{old.url} works again",
        f"{old.url}, one of several registries, fails: {away()}",
    ]


@pytest.mark.parametrize("hung", [False, True])
async def test_one_away_from_the_start_is_unknown_and_not_empty(
    both: Several, old: Faulty, new: Faulty, *, hung: bool
) -> None:
    old.hung, old.failure = hung, None if hung else away()
    await old.put(instance(1))
    await new.put(instance(2))
    async with Watched(both.watch(SERVICE)) as watched:
        assert shows(2, stale=True)(await watched.next())
        assert (await both.instances(SERVICE)).stale
        old.hung, old.failure = False, None
        await watched.until(shows(1, 2))


async def test_two_away_from_the_start_are_an_error(
    both: Several, old: Faulty, new: Faulty
) -> None:
    old.failure = new.failure = away()
    for read in (both.instances(SERVICE), both.services(), anext(both.watch(SERVICE))):
        with pytest.raises(RegistryError, match="does not answer"):
            await read


async def test_services_count_each_instance_once(both: Several, old: Faulty, new: Faulty) -> None:
    await old.put(instance(1), instance(2), make("only-old", tags=("b",)))
    await new.put(instance(2), instance(3), make("only-new"))
    expected = (
        ServiceInfo(name="only-new", instances=1),
        ServiceInfo(name="only-old", tags=("b",), instances=1),
        ServiceInfo(name=SERVICE, instances=3),
    )
    assert await both.services() == expected
    old.failure = away()
    assert await both.services() == expected  # as last read
