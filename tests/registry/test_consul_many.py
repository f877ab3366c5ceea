"""Many watches over few connections, and an agent that grants only a few."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import AsyncIterator

import pytest

from meshkit.discovery.subscription import Subscription
from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_contract import Opener, RegistryContract
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.faults.proxy import Proxy
from tests.servers import Consul
from tests.servers.fixtures import MakeConsul
from tests.support.waiting import aeventually

pytestmark = pytest.mark.consul

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
SHARED_BY = 2 + 2  # the tables' queries, and reads side by side


class TestConsulShared(RegistryContract):
    """The contract by the queries that all watches share."""

    calm = 2.5  # longer than the second look

    @pytest.fixture
    def opener(self, consul: Consul) -> Opener:
        self.agent = consul
        return lambda: open_registry(f"{consul.url}?watch_connections=0")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.agent.put(f"/v1/agent/service/deregister/{instance.id}")


class TestConsulCached(RegistryContract):
    """The contract by the agent's cache."""

    @pytest.fixture
    def opener(self, consul: Consul) -> Opener:
        self.agent = consul
        return lambda: open_registry(f"{consul.url}?cached=true")

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.agent.put(f"/v1/agent/service/deregister/{instance.id}")


@pytest.fixture(params=["", "&cached=true"])
async def shared(consul: Consul, request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    url = f"{consul.url}?watch_connections=0{request.param}"
    async with open_registry(url) as registry:
        yield registry


async def test_each_kind_of_change_is_seen(consul: Consul, shared: Registry) -> None:
    async with Watched(shared.watch("users"), patience=20) as watched:
        assert (await watched.next()).instances == ()
        await shared.register(USERS)
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
        for changed in ({"weight": 5}, {"metadata": {"a": "b"}}, {"tags": ("x",)}):
            await shared.register(wanted := dataclasses.replace(USERS, **changed))
            await watched.until(lambda snapshot: snapshot.instances == (wanted,))
        await shared.register(dataclasses.replace(USERS, status=Status.DRAINING))
        await watched.until(lambda snapshot: not snapshot.up)
        await shared.register(USERS)
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
        consul.put("/v1/agent/check/fail/service:users-1a2b")  # as when its TTL has run out
        await watched.until(lambda snapshot: not snapshot.up)
        await shared.deregister(USERS.id)
        await watched.until(lambda snapshot: not snapshot.instances)


async def test_a_change_costs_no_read_of_what_is_as_it_was(make_consul: MakeConsul) -> None:
    consul = make_consul()
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry(consul.url))
        names = [f"service-{n:02}" for n in range(40)]
        for name in names:
            await registry.register(dataclasses.replace(USERS, id=name, service=name))
        before = open_files()
        watches = {
            name: await stack.enter_async_context(Watched(registry.watch(name), patience=30))
            for name in names
        }
        for watched in watches.values():
            assert (await watched.next()).up
        assert open_files() - before <= 8 + SHARED_BY
        full = r"url=/v1/health/service/service-"
        await asyncio.sleep(2.5)  # the first passes are over
        read = sum(full in line and "filter" not in line for line in consul.log.splitlines())
        last = dataclasses.replace(USERS, id=names[-1], service=names[-1], weight=9)
        await registry.register(last)
        await watches[names[-1]].until(lambda snapshot: snapshot.instances[0].weight == 9)
        await asyncio.sleep(2.5)  # the second look
        again = sum(full in line and "filter" not in line for line in consul.log.splitlines())
        assert again - read <= 2
        for name in names[:-1]:
            await watches[name].nothing(seconds=0)


@pytest.mark.slow
async def test_thirty_watches_where_ten_connections_are_allowed(
    make_consul: MakeConsul, caplog: pytest.LogCaptureFixture
) -> None:
    """By the policy that callers have: what fails is tried again."""
    caplog.set_level(logging.INFO, "meshkit.consul")
    consul = make_consul(connections=10)
    names = [f"service-{n:02}" for n in range(30)]
    async with (
        contextlib.AsyncExitStack() as stack,
        open_registry(consul.url) as registrar,
        open_registry(consul.url) as registry,
    ):
        leases = {}
        for name in names:
            instance = dataclasses.replace(USERS, id=name, service=name)
            leases[name] = await registrar.register(instance)
        subscriptions = []
        for name in names:
            subscription = Subscription(registry, name, cache=None)
            stack.push_async_callback(subscription.aclose)
            subscriptions.append(subscription)
        deadline = time.monotonic() + 150
        while not all(
            each.snapshot and each.snapshot.up and not each.error for each in subscriptions
        ):
            assert time.monotonic() < deadline, [each.error for each in subscriptions]
            await asyncio.sleep(0.2)
            for lease in leases.values():
                await registrar.renew(lease)  # the lease is spared
        for name in names:
            changed = dataclasses.replace(USERS, id=name, service=name, weight=3)
            await registrar.register(changed)
        while {each.snapshot.instances[0].weight for each in subscriptions if each.snapshot} != {3}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.name == "meshkit.consul" and record.levelno == logging.WARNING
    ]
    assert len(warnings) == 1
    assert "raise limits.http_max_conns_per_client" in warnings[0]


async def test_a_dead_consul_behind_a_balancer_is_not_taken_for_a_crowded_one(
    make_consul: MakeConsul, caplog: pytest.LogCaptureFixture
) -> None:
    """What stands before it takes connections, and closes them at once without an answer."""
    consul = make_consul()
    async with Proxy(consul.address) as proxy, open_registry(f"consul://{proxy.address}") as reads:
        names = [f"service-{n}" for n in range(3)]
        subscriptions = [Subscription(reads, name, cache=None) for name in names]
        for each in subscriptions:
            await each.known()
        consul.kill()

        async def known_as(*, lost: bool) -> bool:
            return all((each.error is not None) is lost for each in subscriptions)

        await aeventually(functools.partial(known_as, lost=True))
        with pytest.raises(RegistryUnavailable, match="closed the connection"):
            await reads.services()
        consul.start()
        await aeventually(functools.partial(known_as, lost=False), within=40)
        for each in subscriptions:
            await each.aclose()
    assert "refuses connections" not in caplog.text


async def test_a_lost_agent_ends_all_shared_watches_and_they_begin_anew(
    make_consul: MakeConsul,
) -> None:
    consul = make_consul()
    names = [f"service-{n}" for n in range(5)]
    async with (
        contextlib.AsyncExitStack() as stack,
        open_registry(f"{consul.url}?watch_connections=0") as registry,
    ):
        watches = [
            await stack.enter_async_context(Watched(registry.watch(name), patience=20))
            for name in names
        ]
        for watched in watches:
            await watched.next()
        await asyncio.to_thread(consul.kill)
        errors = []
        for watched in watches:
            with pytest.raises(RegistryUnavailable) as caught:
                await watched.next()
            errors.append(caught.value)
        assert len(set(map(id, errors))) == len(names)  # each has its own, with its own traceback
        with pytest.raises(RegistryError):
            await anext(registry.watch("users"))
        await asyncio.to_thread(consul.start)
        async with Watched(registry.watch("users"), patience=20) as watched:
            assert (await watched.next()).instances == ()
            await registry.register(USERS)
            await watched.until(lambda snapshot: len(snapshot.up) == 1)


async def test_a_corrupt_entry_is_named_once_and_the_others_are_used(
    consul: Consul, shared: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {"ID": "users-bad", "Name": "users", "Port": 70000, "Address": "10.0.0.1"}
    consul.put("/v1/agent/service/register", bad)
    await shared.register(USERS)
    async with open_registry(consul.url) as alone:
        for registry in (shared, alone):
            for _ in range(3):
                assert (await registry.instances("users")).instances == (USERS,)
            async with Watched(registry.watch("users")) as watched:
                assert (await watched.next()).instances == (USERS,)
    named = [each.getMessage() for each in caplog.records if "'users-bad'" in each.getMessage()]
    assert len(named) == 2  # once for each registry object
    assert "'10.0.0.1' and 70000 are no address and port" in named[0]
