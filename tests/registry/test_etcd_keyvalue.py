"""etcd's keys as a store of values: the contract, and what is etcd's own about it."""

import secrets
from collections.abc import AsyncIterator

import pytest

from meshkit.registry import Registry, open_registry
from meshkit.registry.kv import VALUE_LIMIT
from meshkit.testing.keyvalue_contract import KeyValueContract, Opener
from meshkit.testing.watched import Watched
from tests.servers.etcd import Etcd

pytestmark = pytest.mark.etcd


class TestEtcdKeyValue(KeyValueContract):
    @pytest.fixture
    def opener(self, etcd: Etcd) -> Opener:
        return lambda: open_registry(etcd.url)


class TestSkyDnsKeyValue(KeyValueContract):
    @pytest.fixture
    def opener(self, etcd: Etcd) -> Opener:
        return lambda: open_registry(f"skydns+{etcd.url}/mesh.local")


@pytest.fixture
def prefix() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
async def registry(etcd: Etcd, prefix: str) -> AsyncIterator[Registry]:
    async with open_registry(f"{etcd.url}/{prefix}") as registry:
        yield registry


async def test_where_values_are(etcd: Etcd, prefix: str, registry: Registry) -> None:
    put = await registry.kv.put("config/orders/limit", b"\x00\xff")
    assert etcd.entries(f"/{prefix}/") == {f"/{prefix}/kv/config/orders/limit": b"\x00\xff"}
    etcd.put(f"/{prefix}/kv/config/orders/limit", b"7")
    changed = await registry.kv.get("config/orders/limit")
    assert put
    assert changed
    assert (changed.text, changed.revision > put.revision) == ("7", True)


async def test_keys_of_others_that_are_none_are_left_out_and_named_once(
    etcd: Etcd, prefix: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (b"kv/b//odd", b"kv/b\xff", b"kv/", b"kv-not/b"):
        etcd.put(f"/{prefix}/".encode() + name, b"")
    await registry.kv.put("b/1", b"1")
    assert [each.key for each in await registry.kv.list()] == ["b/1"]
    async with Watched(registry.kv.watch("b")) as watched:
        assert [each.key for each in await watched.next()] == ["b/1"]
    words = [
        each.getMessage().partition("skipping ")[2].partition(",")[0] for each in caplog.records
    ]
    assert sorted(words) == [f"/{prefix}/kv/", f"/{prefix}/kv/b//odd", rf"/{prefix}/kv/b\\xff"]


async def test_services_and_values_do_not_mix(registry: Registry) -> None:
    await registry.kv.put("services/users/users-1", b"no instance")
    assert await registry.services() == ()


async def test_a_list_larger_than_grpcs_usual_limit(registry: Registry) -> None:
    for n in range(10):
        await registry.kv.put(f"large/{n}", secrets.token_bytes(VALUE_LIMIT))
    assert len(await registry.kv.list("large/")) == 10
    async with Watched(registry.kv.watch("large/")) as watched:
        assert len(await watched.next()) == 10
