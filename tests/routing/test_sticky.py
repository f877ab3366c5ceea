"""Calls with one key stay together: by key, header or cookie, over HTTP and gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from meshkit import ConfigError, Mesh, context
from meshkit.discovery.routing.values import Sticky
from meshkit.registry import Registry, open_registry
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.routing.fleet import SERVICE, called, canary, put_rules, running, until_called

NAMES = "abcde"
USERS = [f"user-{number}" for number in range(200)]


@pytest.fixture
async def fleet(registry: Registry) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for name in NAMES:
            await stack.enter_async_context(running(registry, name))
        yield


@pytest.fixture
async def mesh(registry: Registry) -> AsyncIterator[Mesh]:
    async with Mesh(open_registry(registry.url)) as mesh:
        yield mesh


async def owner(mesh: Mesh, user: str, sticky: str = "x-user-id") -> str:
    client = mesh.http(SERVICE, sticky=sticky)
    header = ("cookie", f'a=1; session="{user}"') if ":" in sticky else ("X-User-Id", user)
    return (await client.get("/", headers=[header])).instance.id


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("sticky", ["x-user-id", "X-User-ID", "cookie:session"])
async def test_one_user_stays_on_one_instance(mesh: Mesh, sticky: str) -> None:
    """Which is the same for every client, and the users are spread over all."""
    owners = {user: await owner(mesh, user, sticky) for user in USERS}
    assert set(owners.values()) == set(NAMES)
    for user in USERS[:30]:
        assert await called(lambda: owner(mesh, user, sticky), 5) == {owners[user]: 5}  # noqa: B023


@pytest.mark.usefixtures("fleet")
async def test_only_the_users_of_an_instance_that_leaves_move(
    registry: Registry, mesh: Mesh
) -> None:
    async with running(registry, "f"):
        before = {user: await owner(mesh, user) for user in USERS}
        assert "f" in before.values()
    await until_called(lambda: owner(mesh, next(u for u in USERS if before[u] == "f")), _not_f)
    after = {user: await owner(mesh, user) for user in USERS}
    moved = {user for user in USERS if before[user] != after[user]}
    assert moved == {user for user in USERS if before[user] == "f"}


def _not_f(found: dict[str, int]) -> bool:
    return "f" not in found


@pytest.mark.usefixtures("fleet")
async def test_the_request_being_handled_gives_the_key(mesh: Mesh) -> None:
    client = mesh.http(SERVICE, sticky="cookie:session")
    for user in USERS[:20]:
        incoming = ((b"cookie", f"session={user}".encode()),)
        with context.use(context.CallContext(incoming=incoming)):
            found = (await client.get("/")).instance.id
        assert found == await owner(mesh, user, "cookie:session")


@pytest.mark.usefixtures("fleet")
async def test_a_key_of_the_call_comes_first(mesh: Mesh) -> None:
    client = mesh.http(SERVICE, sticky="x-user-id")
    for user in USERS[:20]:
        answer = await client.get("/", headers={"x-user-id": "somebody"}, key=user)
        assert answer.instance.id == await owner(mesh, user)


@pytest.mark.usefixtures("fleet")
async def test_calls_without_the_header_go_to_anybody(mesh: Mesh) -> None:
    client = mesh.http(SERVICE, sticky="x-user-id")

    async def call() -> str:
        return (await client.get("/")).instance.id

    await until_called(call, lambda found: found.keys() == set(NAMES), times=100)


@pytest.mark.usefixtures("fleet")
async def test_grpc_reads_its_metadata(mesh: Mesh) -> None:
    """And agrees with HTTP on who has whom."""
    stub = mesh.grpc(echo_pb2_grpc.EchoStub, SERVICE, sticky="x-user-id")
    for user in USERS[:40]:
        metadata = (("x-trace-bin", b"\x00"), ("x-user-id", user))
        reply = await stub.Say(echo_pb2.EchoRequest(text="hello"), metadata=metadata)
        assert reply.instance == await owner(mesh, user)


@pytest.mark.usefixtures("fleet")
async def test_a_user_stays_on_one_side_of_a_split_while_instances_come_and_go(
    registry: Registry, mesh: Mesh
) -> None:
    async with running(registry, "x", ["canary"]), contextlib.AsyncExitStack() as stack:
        await put_rules(registry, canary(30))
        sides = {user: await owner(mesh, user) == "x" for user in USERS}
        assert 30 < sum(sides.values()) < 95  # of 60 +- 6.5
        for name in "yz":
            await stack.enter_async_context(running(registry, name, ["canary"]))
            await stack.enter_async_context(running(registry, f"more-{name}"))
            for user, beta in sides.items():
                assert (await owner(mesh, user) in "xyz") == beta


@pytest.mark.parametrize("source", ["", "x user", "cookie:", "cookie:a=b", "x:y"])
def test_what_is_no_header_is_refused_at_once(source: str) -> None:
    with pytest.raises(ConfigError, match=r"is no header and no cookie: use a name such as"):
        Sticky(source)


@pytest.mark.parametrize(
    ("cookie", "key"),
    [
        ("session=1", "1"),
        ("a=b;session=1", "1"),
        ("mysession=2; session=1; session=3", "1"),
        ('session="1"', "1"),
        ("session=a=b", "a=b"),
        ("session=", None),
        ("session", None),
        ("; = ;;", None),
        ("", None),
    ],
)
def test_cookies_are_found_in_whatever_comes(cookie: str, key: str | None) -> None:
    assert Sticky("cookie:session").of([("Cookie", cookie)]) == key
