"""etcd's keys as a store of values."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from meshkit.errors import ConfigError
from meshkit.registry import Registry, open_registry
from meshkit.registry.kv import ABSENT, VALUE_LIMIT, Entry
from meshkit.testing.watched import Watched
from tests.servers.etcd import Etcd

pytestmark = pytest.mark.etcd


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
async def registry(etcd: Etcd, prefix: str) -> AsyncIterator[Registry]:
    async with open_registry(f"{etcd.url}/{prefix}") as registry:
        yield registry


def pairs(entries: tuple[Entry, ...]) -> list[tuple[str, str]]:
    return [(each.key, each.text) for each in entries]


async def test_put_get_delete(etcd: Etcd, prefix: str, registry: Registry) -> None:
    kv = registry.kv
    assert await kv.get("config/orders/limit") is None
    first = await kv.put("config/orders/limit", b"\x00\xff")
    assert first
    assert await kv.get("config/orders/limit") == first
    assert etcd.entries(f"/{prefix}/") == {f"/{prefix}/kv/config/orders/limit": b"\x00\xff"}
    second = await kv.put("config/orders/limit", b"")
    assert second
    assert second.revision > first.revision
    assert await kv.get("config/orders/limit") == second
    assert await kv.delete("config/orders/limit") is True
    assert await kv.delete("config/orders/limit") is False
    assert await kv.get("config/orders/limit") is None


async def test_expectations(registry: Registry) -> None:
    kv = registry.kv
    first = await kv.put("a", b"1", expect=ABSENT)
    assert first
    assert await kv.put("a", b"2", expect=ABSENT) is None
    assert await kv.put("a", b"2", expect=first.revision + 1) is None
    second = await kv.put("a", b"2", expect=first.revision)
    assert second
    assert await kv.put("a", b"3", expect=first.revision) is None
    assert await kv.delete("a", expect=first.revision) is False
    assert await kv.get("a") == second
    assert await kv.delete("a", expect=second.revision) is True
    assert await kv.delete("a", expect=second.revision) is False
    assert await kv.put("a", b"4", expect=second.revision) is None
    assert await kv.put("a", b"4", expect=ABSENT)


async def test_only_one_of_many_wins(registry: Registry) -> None:
    start = await registry.kv.put("counter", b"0")
    assert start
    won = await asyncio.gather(
        *(registry.kv.put("counter", b"%d" % n, expect=start.revision) for n in range(20))
    )
    (winner,) = (entry for entry in won if entry)
    assert await registry.kv.get("counter") == winner


async def test_lists_by_any_prefix(etcd: Etcd, prefix: str, registry: Registry) -> None:
    for key in ("b/2", "b/1", "b", "bc", "a", "B"):
        await registry.kv.put(key, key.encode())
    etcd.put(f"/{prefix}/kv/b//odd", b"")
    etcd.put(f"/{prefix}/kv-not/b", b"")
    assert [key for key, _ in pairs(await registry.kv.list())] == [
        "B",
        "a",
        "b",
        "b/1",
        "b/2",
        "bc",
    ]
    assert [key for key, _ in pairs(await registry.kv.list("b"))] == ["b", "b/1", "b/2", "bc"]
    assert [key for key, _ in pairs(await registry.kv.list("b/"))] == ["b/1", "b/2"]
    assert await registry.kv.list("nothing") == ()


async def test_watch(etcd: Etcd, prefix: str, registry: Registry) -> None:
    await registry.kv.put("a/1", b"x")
    async with (
        open_registry(f"{etcd.url}/{prefix}") as other,
        Watched(other.kv.watch("a/")) as watched,
    ):
        assert pairs(await watched.next()) == [("a/1", "x")]
        await registry.kv.put("a/2", b"y")
        assert pairs(await watched.next()) == [("a/1", "x"), ("a/2", "y")]
        await registry.kv.put("b", b"z")
        await watched.nothing(seconds=0.3)
        await registry.kv.delete("a/1")
        assert pairs(await watched.next()) == [("a/2", "y")]


async def test_services_and_values_do_not_mix(registry: Registry) -> None:
    await registry.kv.put("services/users/users-1", b"no instance")
    assert await registry.services() == ()


async def test_what_no_registry_takes(registry: Registry) -> None:
    for key in ("", "/a", "a/", "a//b", "a b", "..", "ü", "a" * 513):
        for operation in (registry.kv.get(key), registry.kv.put(key, b""), registry.kv.delete(key)):
            with pytest.raises(ConfigError, match="invalid key"):
                await operation
    with pytest.raises(ConfigError, match="at most 524288"):
        await registry.kv.put("a", b"x" * (VALUE_LIMIT + 1))
    largest = await registry.kv.put("a", b"x" * VALUE_LIMIT)
    assert await registry.kv.get("a") == largest


async def test_a_list_larger_than_grpcs_usual_limit(registry: Registry) -> None:
    for n in range(10):
        await registry.kv.put(f"large/{n}", secrets.token_bytes(VALUE_LIMIT))
    assert len(await registry.kv.list("large/")) == 10
    async with Watched(registry.kv.watch("large/")) as watched:
        assert len(await watched.next()) == 10
