"""``zookeeper://`` on an ensemble of three: servers that are killed, and what remains."""

import contextlib
import dataclasses
import secrets
from collections.abc import Callable

import pytest

from meshkit.errors import LeaseLost, RegistryUnavailable
from meshkit.model import Endpoint, Instance, Snapshot
from meshkit.registry import Lease, Registry, open_registry
from meshkit.testing.watched import Watched
from tests.servers import ZooKeeper
from tests.support.waiting import aeventually

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


def url_of(servers: list[ZooKeeper]) -> str:
    return f"zookeeper://{','.join(each.address for each in servers)}/{secrets.token_hex(4)}"


def leader_of(servers: list[ZooKeeper]) -> ZooKeeper:
    (leader,) = (each for each in servers if each.is_leader())
    return leader


def weighs(weight: int) -> Callable[[Snapshot], bool]:
    return lambda snapshot: [each.weight for each in snapshot.up] == [weight]


async def keep(registry: Registry, lease: Lease, instance: Instance) -> Lease | None:
    """Do what the runtime does at each of its turns; None when it has to be tried again."""
    with contextlib.suppress(RegistryUnavailable):
        try:
            await registry.renew(lease)
        except LeaseLost:
            return await registry.register(instance)
        return lease
    return None


async def registered(registry: Registry, instance: Instance) -> Lease | None:
    with contextlib.suppress(RegistryUnavailable):
        return await registry.register(instance)
    return None


async def is_away(registry: Registry) -> bool:
    try:
        await registry.instances("users")
    except RegistryUnavailable:
        return True
    return False


@pytest.mark.parametrize("fault", [ZooKeeper.kill, ZooKeeper.pause])
async def test_the_leader_may_die_or_hang(
    zookeeper_servers: list[ZooKeeper], fault: Callable[[ZooKeeper], None]
) -> None:
    url = url_of(zookeeper_servers)
    async with open_registry(url) as registry, open_registry(url) as reader:
        lease = await registry.register(USERS)
        async with Watched(reader.watch("users"), patience=30) as watched:
            assert weighs(1)(await watched.next())
            fault(leader_of(zookeeper_servers))
            kept = await aeventually(lambda: keep(registry, lease, USERS), within=30)
            assert kept
            await aeventually(lambda: keep(registry, kept, USERS), within=30)
            changed = dataclasses.replace(USERS, weight=2)
            await aeventually(lambda: registered(registry, changed), within=30)
            with contextlib.suppress(RegistryUnavailable):
                # Nobody is missed meanwhile: it goes on, or says that it can't.
                while not weighs(2)(snapshot := await watched.next()):
                    assert weighs(1)(snapshot)
        async with Watched(reader.watch("users"), patience=30) as watched:
            await watched.until(weighs(2))
            await aeventually(
                lambda: registered(registry, dataclasses.replace(USERS, weight=3)), within=30
            )
            await watched.until(weighs(3))


async def test_without_a_majority_nothing_is_answered_and_then_all_is_as_before(
    zookeeper_servers: list[ZooKeeper],
) -> None:
    url = url_of(zookeeper_servers)
    async with open_registry(url) as registry, open_registry(url) as reader:
        lease = await registry.register(USERS)
        await registry.kv.put("limit", b"1")
        assert weighs(1)(await reader.instances("users"))
        for server in zookeeper_servers[:2]:
            server.kill()
        await aeventually(lambda: is_away(reader), within=30)
        with pytest.raises(RegistryUnavailable):
            await registry.kv.put("limit", b"2")
        async with open_registry(url) as late:
            with pytest.raises(RegistryUnavailable) as caught:
                await late.instances("users")
            assert "\n" not in str(caught.value)
        for server in zookeeper_servers[:2]:
            server.launch()
        await aeventually(lambda: keep(registry, lease, USERS), within=30)
        async with Watched(reader.watch("users"), patience=30) as watched:
            await watched.until(weighs(1))
        assert await registry.kv.get("limit")
