"""Routes as values, whom they select, and what is said when that is nobody."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence

import pytest

from meshkit import ConfigError, Instance, Mesh, NoInstances, Route
from meshkit.client.declared import http_client
from meshkit.discovery.routing import narrowed, parse_name
from meshkit.discovery.target import ROUTES, Target
from meshkit.model import Endpoint
from meshkit.registry import open_registry
from tests.support.waiting import aeventually


def made(
    number: int, version: str = "1.0.0", tags: Sequence[str] = (), **metadata: str
) -> Instance:
    return Instance(
        id=f"users-{number}",
        service="users",
        version=version,
        tags=tuple(tags),
        metadata=metadata,
        endpoints={"http": Endpoint("127.0.0.1", 8000 + number)},
    )


FLEET = [
    made(1, "1.4.0", ["v1"], region="eu"),
    made(2, "2.0.0", ["v2"], region="eu"),
    made(3, "2.1.0", ["v2", "canary"], region="us"),
    made(4, "main", ["v2"]),
]


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    registry = open_registry("memory://test-routes")
    for each in FLEET:
        await registry.register(each)
    async with Mesh(registry, balancer="round_robin") as mesh:
        target = mesh.target("users")
        await aeventually(lambda: asyncio.sleep(0, target.subscription.snapshot))
        yield target
        for each in FLEET:
            await registry.deregister(each.id)


@pytest.mark.parametrize(
    ("route", "selected"),
    [
        (Route(), [1, 2, 3, 4]),
        (Route(tags=("v2",)), [2, 3, 4]),
        (Route(tags=("canary", "v2")), [3]),
        (Route(version=">=2,<3"), [2, 3]),
        (Route(metadata={"region": "eu"}), [1, 2]),
        (Route(tags=("v2",), version="~=2.0", metadata={"region": "eu"}), [2]),
        (Route(tags=("v3",)), []),
        (Route(tags=("v3",), fallback=True), [1, 2, 3, 4]),
        (Route(tags=("v1",), fallback=True), [1]),
    ],
)
def test_who_is_selected(route: Route, selected: list[int]) -> None:
    assert [int(each.id[-1]) for each in route.select(FLEET)] == selected


def test_equal_routes_are_one_key_whatever_the_order() -> None:
    one = Route(tags=("a", "b"), metadata={"x": "1", "y": "2"})
    other = Route(tags=("b", "a", "b"), metadata={"y": "2", "x": "1"})
    assert one == other
    assert hash(one) == hash(other)
    assert one != Route(tags=("a", "b"), metadata={"x": "1", "y": "3"})
    assert one != dataclasses.replace(one, fallback=True)


def test_a_route_can_not_be_changed() -> None:
    metadata = {"region": "eu"}
    route = Route(metadata=metadata)
    metadata["region"] = "us"
    assert route.metadata == {"region": "eu"}
    with pytest.raises(TypeError):
        route.metadata["region"] = "us"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        route.version = "2"  # type: ignore[misc]


def test_one_tag_may_be_written_as_a_text() -> None:
    assert Route(tags="v2") == Route(tags=("v2",))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tags": ("a b",)}, "Route: 'a b' is no tag"),
        ({"tags": ("",)}, "Route: '' is no tag"),
        ({"tags": (1,)}, "Route: 1 is no tag"),
        ({"version": "two"}, "version range 'two': 'two' is not an operator"),
        ({"metadata": {"region": 1}}, "Route: metadata 'region' is to be text, not 1"),
    ],
)
def test_bad_conditions_are_refused_when_it_is_made(options: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Route(**options)  # type: ignore[arg-type]


def test_the_short_form_is_a_tag() -> None:
    assert parse_name("users") == ("users", None)
    assert parse_name("users@v2") == ("users", "v2")
    base = Route(version=">=2")
    assert narrowed(base, "canary") == Route(tags=("canary",), version=">=2")
    assert narrowed(None, "canary") == Route(tags=("canary",))
    for text in ("users@", "users@a@b", "users@a b"):
        with pytest.raises(ConfigError, match="is no tag"):
            parse_name(text)
    with pytest.raises(ConfigError, match=r"http_client\('users@'\): Route: '' is no tag"):
        http_client("users@")
    with pytest.raises(ConfigError, match=r"http_client\('Users@v2'\): invalid service name"):
        http_client("Users@v2")


async def test_clients_of_the_short_form_and_of_the_route_are_one(target: Target) -> None:
    async with Mesh("memory://test-routes") as mesh:
        assert mesh.http("users@v2") is mesh.http("users", route=Route(tags=("v2",)))
        assert mesh.http("users@v2") is not mesh.http("users")
        with pytest.raises(ConfigError, match=r"route= must be a Route, as in .*, not 'v2'"):
            mesh.http("users", route="v2")  # type: ignore[arg-type]


async def test_retries_stay_within_the_route(target: Target) -> None:
    route = Route(tags=("v2",))
    tried: list[str] = []
    for _ in range(3):
        pick = target.try_pick("http", tried, route=route)
        assert pick is not None
        tried.append(pick.instance.id)
    assert sorted(tried) == ["users-2", "users-3", "users-4"]
    with pytest.raises(NoInstances, match="users: no instance left to try of 3"):
        target.try_pick("http", tried, route=route)


async def test_a_soft_route_goes_elsewhere_when_its_own_have_failed(target: Target) -> None:
    pick = target.try_pick("http", ["users-3"], route=Route(tags=("canary",), fallback=True))
    assert pick is not None
    assert pick.instance.id != "users-3"


async def test_when_nobody_fits_the_error_says_what_there_is(target: Target) -> None:
    route = Route(tags=("v3",), version=">=3", metadata={"region": "asia"})
    with pytest.raises(NoInstances) as caught:
        target.try_pick("http", route=route)
    assert str(caught.value) == (
        "users: none of 4 fits tag v3, version >=3, region=asia; they have tags v2 (3), v1 (1), "
        "canary (1), versions 1.4.0 (1), 2.0.0 (1), 2.1.0 (1), main (1), "
        "region eu (2), us (1), (none) (1)"
    )


async def test_a_route_made_for_each_call_does_not_fill_the_memory(target: Target) -> None:
    assert target.try_pick("http") is not None
    for number in range(3 * ROUTES):
        route = Route(metadata={"user": str(number)}, fallback=True)
        assert target.try_pick("http", route=route) is not None
    assert len(target._balancers) <= ROUTES
    assert target.try_pick("http") is not None
    assert ("http", None) in target._balancers
