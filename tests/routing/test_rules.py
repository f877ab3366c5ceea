"""Rules from the registry: read, checked, followed, and what becomes of calls meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from meshkit import ConfigError, Mesh, NoInstances, Route, context
from meshkit.discovery.routing.rules import parse_rules
from meshkit.registry import Registry, open_registry
from tests.routing.fleet import (
    SERVICE,
    Said,
    called,
    canary,
    put_rules,
    running,
    settle_down,
    until_called,
)


class Users:
    """A client of two instances and a canary.

    Attributes:
        mesh: its mesh.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    async def call(self, **options: object) -> str:
        answer = await self.mesh.http(SERVICE).get("/", **options)  # type: ignore[arg-type]
        return answer.instance.id


@pytest.fixture
async def users(registry: Registry) -> AsyncIterator[Users]:
    async with (
        running(registry, "a"),
        running(registry, "b"),
        running(registry, "c", ["canary"]),
        Mesh(open_registry(registry.url), balancer="round_robin") as mesh,
    ):
        yield Users(mesh)


async def test_without_rules_all_are_called(users: Users) -> None:
    assert await called(users.call, 30) == {"a": 10, "b": 10, "c": 10}


async def test_the_first_call_knows_the_rules(registry: Registry, users: Users) -> None:
    await put_rules(registry, canary(0))
    assert await called(users.call, 20) == {"a": 10, "b": 10}


async def test_shares_are_exact_and_change_live(registry: Registry, users: Users) -> None:
    await put_rules(registry, canary(5))
    assert (await called(users.call, 200))["c"] == 10
    await put_rules(registry, canary(50))
    await until_called(users.call, lambda found: found["c"] == 10)
    assert (await called(users.call, 200))["c"] == 100
    await put_rules(registry, canary(100))
    await until_called(users.call, lambda found: found["c"] == 20)
    await registry.kv.delete("meshkit/routes/users")
    await until_called(users.call, lambda found: found.keys() == {"a", "b", "c"})
    assert await called(users.call, 30) == {"a": 10, "b": 10, "c": 10}


async def test_rules_of_other_services_change_nothing(registry: Registry, users: Users) -> None:
    await put_rules(registry, {"split": {"orders": 1}}, service="orders")
    await put_rules(registry, b"{", service="ledger")
    assert await called(users.call, 30) == {"a": 10, "b": 10, "c": 10}


async def test_headers_lead_to_a_group(registry: Registry, users: Users) -> None:
    """Of the call, or of the request being handled; and nobody else gets there."""
    match = {"header": {"X-Beta": "1"}, "to": "users@canary"}
    await put_rules(registry, {"match": [match]})
    assert await called(users.call, 20) == {"a": 10, "b": 10}
    assert await users.call(headers={"x-beta": "1"}) == "c"
    assert await users.call(headers={"x-beta": "2"}) != "c"
    with context.use(context.CallContext(incoming=((b"x-beta", b"1"),))):
        assert await users.call() == "c"


async def test_matches_come_in_order_and_before_the_split(registry: Registry, users: Users) -> None:
    first = {"header": {"x-beta": "*", "x-region": "eu"}, "to": "users"}
    second = {"header": {"x-beta": "*"}, "to": "users@canary"}
    await put_rules(registry, {**canary(50), "match": [first, second]})
    assert await called(lambda: users.call(headers={"x-beta": "yes"}), 20) == {"c": 20}
    both = {"x-beta": "no", "x-region": "eu"}
    assert await called(lambda: users.call(headers=both), 20) == {"a": 10, "b": 10}
    assert (await called(users.call, 20))["c"] == 10


async def test_a_key_stays_on_its_side(registry: Registry, users: Users) -> None:
    await put_rules(registry, canary(30))
    for number in range(20):
        sides = await called(lambda: users.call(key=f"user-{number}"), 6)  # noqa: B023
        assert sides["c"] in (0, 6)
    keys = [await users.call(key=f"user-{number}") == "c" for number in range(200)]
    assert 35 < sum(keys) < 90  # of 60 +- 6.5


async def test_a_group_without_instances_leaves_its_calls_to_the_rest(
    registry: Registry, users: Users, said: Said
) -> None:
    await put_rules(registry, {"split": {"users": 50, "users@canary": 25, "users@beta": 25}})
    for _ in range(3):
        found = await called(users.call, 100)
        assert found == {"a": found["a"], "b": 75 - found["a"], "c": 25}
    async with running(registry, "d", ["beta"]):
        await until_called(users.call, lambda found: found["d"] == 5)
    await until_called(users.call, lambda found: not found["d"])
    nobody = "users: nobody is up in users@beta: the others get its calls"
    again = "users: users@beta has instances again, and gets its calls"
    assert said.lines == [nobody, again, nobody]


async def test_when_only_the_canary_is_left_it_gets_everything(
    registry: Registry, said: Said
) -> None:
    await put_rules(registry, canary(5))
    async with running(registry, "c", ["canary"]), Mesh(open_registry(registry.url)) as mesh:
        assert await called(Users(mesh).call, 20) == {"c": 20}
    assert said.lines == ["users: nobody is up in users: the others get its calls"]


async def test_a_broken_canary_fails_no_idempotent_call(registry: Registry, users: Users) -> None:
    """Its share goes on to the rest by the retry; the shares are not the caller's promise."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(running(registry, "d", ["worse"]))
        server.answer = lambda _: b""  # reads the request, and closes
        await put_rules(registry, {"split": {"users": 50, "users@worse": 50}})
        found = await called(users.call, 40)
        assert not found["d"]
        assert sum(found.values()) == 40
        assert server.received


async def test_the_rules_divide_what_the_callers_own_route_allows(
    registry: Registry, users: Users
) -> None:
    async with (
        running(registry, "d", ["v2"]),
        running(registry, "e", ["v2", "canary"]),
    ):
        await put_rules(registry, canary(10))
        of_v2 = users.mesh.http("users@v2")

        async def call() -> str:
            return (await of_v2.get("/")).instance.id

        assert await called(call, 100) == {"d": 90, "e": 10}
        only = users.mesh.http("users@canary")
        found = Counter([(await only.get("/")).instance.id for _ in range(20)])
        assert found.keys() == {"c", "e"}
        with pytest.raises(NoInstances, match=r"none of 5 fits tag v3; they have tags "):
            await users.call(route=Route(tags=("v3",)))


async def test_a_bad_value_is_refused_with_one_line_and_the_old_stays(
    registry: Registry, users: Users, said: Said
) -> None:
    await put_rules(registry, canary(50))
    assert (await called(users.call, 20))["c"] == 10
    for value in (b"{", b"\xff", {"split": {"users": -1}}):
        await put_rules(registry, value)
        await settle_down()
        assert (await called(users.call, 20))["c"] == 10
    assert len(said.lines) == 3, said.lines
    for line in said.lines:
        assert line.startswith("meshkit/routes/users is refused: ")
        assert line.endswith("; the rules before stay")
        assert "\n" not in line
    await put_rules(registry, canary(0))
    await until_called(users.call, lambda found: not found["c"])


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"95", 'must be an object with "split", "match" or both'),
        (b"{}", 'must be an object with "split", "match" or both'),
        (b'{"splits": {}}', 'must be an object with "split", "match" or both'),
        (b'{"split": {}}', '"split" must be an object of shares'),
        (b'{"split": {"users": 99.5}}', "the share of users must be a whole number"),
        (b'{"split": {"users": true}}', "the share of users must be a whole number"),
        (b'{"split": {"users": 10001}}', "a whole number from 0 to 10000"),
        (b'{"split": {"users": 0}}', "every share is 0"),
        (b'{"split": {"orders": 1}}', "'orders' is no group of users"),
        (b'{"split": {"users@": 1}}', "'users@' is no group of users"),
        (b'{"match": {}}', '"match" must be a list'),
        (b'{"match": [{"to": "users"}]}', "a match must have a header and where to"),
        (b'{"match": [{"header": {}, "to": "users"}]}', "header of a match must be an object"),
        (b'{"match": [{"header": {"x": 1}, "to": "users"}]}', "'x' of a match must be text"),
        (b'{"match": [{"header": {"x": "1"}, "to": 5}]}', "5 is no group of users"),
    ],
)
def test_bad_rules_are_one_line(value: bytes, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules("users", value)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_registry_without_values_has_no_rules(said: Said) -> None:
    async with open_registry(f"memory://{SERVICE}") as somewhere, running(somewhere, "a") as _:
        (instance,) = (await somewhere.instances(SERVICE)).instances
        url = f"static://users={instance.endpoints['http']}"
        async with Mesh(url) as mesh:
            assert (await mesh.http(SERVICE).get("/")).status_code == 200
    assert said.lines == []


async def test_the_mesh_leaves_no_task_behind(registry: Registry, users: Users) -> None:
    async with running(registry, "a"):
        async with Mesh(open_registry(registry.url)) as mesh:
            await mesh.http(SERVICE).get("/")
            names = {task.get_name() for task in asyncio.all_tasks()}
            assert "meshkit-routes" in names
        await users.mesh.aclose()
    assert "meshkit-routes" not in {task.get_name() for task in asyncio.all_tasks()}
