"""How clients are told to balance: by name or by what makes one, for one client or for all."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from meshkit import ConfigError, EjectionPolicy, Mesh, http_client
from meshkit.discovery.balancing import (
    Candidate,
    ConsistentHash,
    Outcome,
    PowerOfTwo,
    RoundRobin,
)
from meshkit.discovery.target import Target
from meshkit.model import Endpoint, Instance
from meshkit.runtime import Runtime
from meshkit.service import MeshService
from meshkit.settings import MeshSettings
from tests.support.waiting import aeventually


def users(number: int, *, weight: int = 1) -> Instance:
    return Instance(
        id=f"users-{number}",
        service="users",
        weight=weight,
        endpoints={"http": Endpoint("127.0.0.1", 8000 + number)},
    )


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with Mesh(f"memory://{uuid.uuid4()}") as made:
        yield made


async def called(target: Target, times: int) -> Counter[str]:
    await target.pick("http")
    picked = [target.try_pick("http") for _ in range(times)]
    return Counter(each.instance.id for each in picked if each is not None)


async def test_a_client_says_by_name(mesh: Mesh) -> None:
    for number, weight in ((1, 1), (2, 3)):
        await mesh.registry.register(users(number, weight=weight))
    target = mesh.target("users", balancer="weighted", slow_start=0)
    assert await called(target, 400) == {"users-1": 100, "users-2": 300}


async def test_a_client_brings_its_own(mesh: Mesh) -> None:
    class First(RoundRobin):
        """Always the first in the list."""

        def update(self, candidates: Sequence[Candidate]) -> None:
            super().update(candidates[:1])

    for number in (1, 2, 3):
        await mesh.registry.register(users(number))
    target = mesh.target("users", balancer=First)
    assert set(await called(target, 5)) == {"users-1"}


async def test_clients_share_what_they_balance_alike(mesh: Mesh) -> None:
    assert mesh.target("users") is mesh.target("users", balancer="p2c")
    assert mesh.target("users", balancer=PowerOfTwo) is mesh.target("users")
    assert mesh.target("users", balancer="least") is not mesh.target("users")
    assert mesh.target("users", subset=7) is not mesh.target("users")
    assert mesh.http("users") is not mesh.http("users", balancer="hash")
    assert mesh.http("users", balancer="hash") is mesh.http("users", balancer="hash")


async def test_clients_that_balance_differently_share_what_they_know(mesh: Mesh) -> None:
    """One question to the registry, and one has not to find dead what another has found so."""
    for number in (1, 2):
        await mesh.registry.register(users(number))
    one, other = mesh.target("users"), mesh.target("users", balancer="round_robin")
    assert one is not other
    assert one.subscription is other.subscription
    own = mesh.target("users", ejection=EjectionPolicy(failures=3))
    assert own.subscription is one.subscription

    await other.pick("http")
    found = await one.pick("http")
    found.done(Outcome.REFUSED)
    left = {"users-1", "users-2"} - {found.instance.id}
    assert set(await called(other, 10)) == left
    assert set(await called(own, 10)) == {"users-1", "users-2"}  # it judges by itself


async def test_one_probe_asks_for_all_clients(mesh: Mesh) -> None:
    asked: list[str] = []

    async def probe(instance: Instance, endpoint: Endpoint) -> bool:
        asked.append(instance.id)
        return True

    for number in (1, 2):
        await mesh.registry.register(users(number))
    quick = EjectionPolicy(pause=0.01, longest_pause=0.01)
    one = mesh.target("users", ejection=quick)
    other = mesh.target("users", ejection=quick, balancer="round_robin")
    one.probe_with("http", probe)
    await other.pick("http")
    found = await one.pick("http")
    found.done(Outcome.REFUSED)

    async def back() -> bool:
        pick = other.try_pick("http")
        assert pick is not None
        pick.done(Outcome.OK)
        return not other.ejections.describe()

    await aeventually(back)
    assert asked == [found.instance.id]


async def test_a_mesh_says_for_all(mesh: Mesh) -> None:
    async with Mesh(mesh.registry, balancer="hash") as hashing:
        assert hashing.target("users") is hashing.target("users", balancer=ConsistentHash)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balancer": "fast"}, r"no balancer 'fast'; there are: p2c, "),
        ({"balancer": RoundRobin()}, "neither a name"),
        ({"slow_start": -1}, "slow_start is -1 s, not between 0 and 3600"),
        ({"subset": -1}, "subset is -1; it must be at least 0"),
    ],
)
async def test_what_makes_no_sense_is_one_clear_error(
    mesh: Mesh, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        mesh.http("users", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


async def test_a_mesh_with_an_unknown_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no balancer 'fast'"):
        Mesh("memory://unknown", balancer="fast")


class Orders(MeshService):
    name = "orders"
    users = http_client("users")


async def test_a_declared_client_is_the_meshs_own_and_not_made_again() -> None:
    service = Orders()
    for _ in range(2):  # a new mesh each time
        settings = MeshSettings(registry=f"memory://{uuid.uuid4()}")
        async with Runtime(service, settings=settings) as running:
            assert service.users is service.users is running.mesh.http("users")


async def test_the_setting_is_for_all_clients_of_a_service() -> None:
    settings = MeshSettings(registry=f"memory://{uuid.uuid4()}", balancer="least")
    async with Runtime(Orders(), settings=settings) as running:
        assert running.mesh.target("users") is running.mesh.target("users", balancer="least")


async def test_a_newcomer_gets_its_share_little_by_little(mesh: Mesh) -> None:
    for number in (1, 2):
        await mesh.registry.register(users(number))
    target = mesh.target("users", balancer="weighted", slow_start=0.5)
    await target.pick("http")
    await mesh.registry.register(users(3))

    async def joined() -> bool:
        assert target.subscription.snapshot
        return len(target.subscription.snapshot.instances) == 3

    await aeventually(joined)
    assert (await called(target, 210))["users-3"] <= 70

    async def full() -> bool:
        return (await called(target, 300))["users-3"] == 100

    await aeventually(full)
