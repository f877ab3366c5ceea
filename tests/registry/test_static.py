"""``static://``: what can be written, and that it is only read."""

from __future__ import annotations

import asyncio

import pytest

from meshkit.errors import RegistryError, RegistryUrlError
from meshkit.model import INSTANCE_ID, Endpoint, Instance, ServiceInfo
from meshkit.registry import Lease, open_registry
from meshkit.testing.reading_contract import Opener, ReadOnlyContract
from meshkit.testing.watched import Watched

URL = "static://users=127.0.0.1:8000,127.0.0.1:8001;orders=[::1]:9000/9001;ledger=box.local:/9000"
USERS = (
    Instance(
        id="users-127-0-0-1-8000",
        service="users",
        endpoints={"http": Endpoint("127.0.0.1", 8000)},
    ),
    Instance(
        id="users-127-0-0-1-8001",
        service="users",
        endpoints={"http": Endpoint("127.0.0.1", 8001)},
    ),
)


class TestStatic(ReadOnlyContract):
    @pytest.fixture
    def opener(self) -> Opener:
        return lambda: open_registry(URL)


async def endpoints(addresses: str) -> dict[str, dict[str, Endpoint]]:
    snapshot = await open_registry(f"static://users={addresses}").instances("users")
    return {each.id: dict(each.endpoints) for each in snapshot.instances}


async def test_instances() -> None:
    registry = open_registry(URL)
    assert (await registry.instances("users")).instances == USERS
    (orders,) = (await registry.instances("orders")).instances
    assert orders.endpoints == {"http": Endpoint("::1", 9000), "grpc": Endpoint("::1", 9001)}
    (ledger,) = (await registry.instances("ledger")).instances
    assert ledger.endpoints == {"grpc": Endpoint("box.local", 9000)}
    assert (await registry.instances("nobody")).instances == ()
    assert await registry.services() == (
        ServiceInfo(name="ledger", instances=1),
        ServiceInfo(name="orders", instances=1),
        ServiceInfo(name="users", instances=2),
    )


async def test_watches_yield_once_until_closed() -> None:
    registry = open_registry(URL)
    async with (
        Watched(registry.watch("users")) as users,
        Watched(registry.watch("nobody")) as nobody,
        Watched(registry.watch_services()) as services,
    ):
        assert (await users.next()).instances == USERS
        assert (await nobody.next()).instances == ()
        assert len(await services.next()) == 3
        await asyncio.gather(*(each.nothing(seconds=0.2) for each in (users, nobody)))
        await services.nothing(seconds=0.2)
        await registry.aclose()
        with pytest.raises(StopAsyncIteration):
            await users.next()
        with pytest.raises(StopAsyncIteration):
            await services.next()
    await registry.aclose()


async def test_it_is_read_only() -> None:
    registry = open_registry(URL)
    assert registry.read_only
    with pytest.raises(RegistryError, match="read-only"):
        await registry.register(USERS[0])
    with pytest.raises(RegistryError, match="read-only"):
        await registry.renew(Lease(instance_id=USERS[0].id, ttl=1.0))
    await registry.deregister(USERS[0].id)
    assert (await registry.instances("users")).instances == USERS


async def test_ids_are_unique_labels_that_do_not_depend_on_the_order() -> None:
    addresses = ["a.b:80", "a-b:80", "h:90", "h:/90", "h:90/91", f"{'long.' * 20}x:80", "[::]:80"]
    found = await endpoints(",".join(addresses))
    assert len(found) == len(addresses)
    assert all(INSTANCE_ID.fullmatch(each) for each in found)
    assert await endpoints(",".join(reversed(addresses))) == found


@pytest.mark.parametrize(
    ("rest", "part"),
    [
        ("", "''"),
        ("users", "'users'"),
        ("users=", "''"),
        ("users=a:1,", "''"),
        ("users=a:1;", "''"),
        ("users=a", "'a'"),
        ("users=a:", "'a:'"),
        ("users=a:1/", "'a:'"),
        ("users=a:/", "'a:'"),
        ("users=:1", "':1'"),
        ("users=/9", "'/9'"),
        ("users=a:0", "'a:0'"),
        ("users=a:65536", "'a:65536'"),
        ("users=a:http", "'a:http'"),
        ("users=a:1/2/3", "'a:2/3'"),
        ("users=::1:80", "'::1:80'"),
        ("users=a:1,b!c:1", "'b!c:1'"),
        ("users=a:1,a:1", "'a:1' is listed twice"),
        ("users=a:1;users=b:1", "'users' is listed twice"),
        ("Users=a:1", "'Users'"),
        ("users=a:1?x=1", "unknown parameter 'x'"),
        ("me:secret@users=a:1", "user or a password"),
    ],
)
def test_bad_urls_name_the_bad_part(rest: str, part: str) -> None:
    with pytest.raises(RegistryUrlError) as caught:
        open_registry(f"static://{rest}")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
