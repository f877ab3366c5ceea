"""Consul's key-value store: the contract, and what is Consul's own about it."""

import asyncio
import contextlib

import pytest

from meshkit.errors import RegistryDenied, RegistryError, RegistryUnavailable
from meshkit.registry import open_registry
from meshkit.registry.kv import VALUE_LIMIT
from meshkit.testing.keyvalue_contract import KeyValueContract, Opener
from meshkit.testing.watched import Watched
from tests.servers import Consul, ConsulCluster
from tests.servers.fixtures import MakeConsul

pytestmark = pytest.mark.consul


class TestConsulKeyValue(KeyValueContract):
    @pytest.fixture
    def opener(self, consul: Consul) -> Opener:
        return lambda: open_registry(consul.url)


class TestUnderAnotherPrefix(KeyValueContract):
    @pytest.fixture
    def opener(self, consul: Consul) -> Opener:
        return lambda: open_registry(f"{consul.url}?kv_prefix=team/a&dc=dc1")


async def test_keys_are_where_others_look_for_them(consul: Consul) -> None:
    for query, place in (("", "meshkit/"), ("?kv_prefix=team/a", "team/a/"), ("?kv_prefix=/", "")):
        async with open_registry(f"{consul.url}{query}") as registry:
            await registry.kv.put("shown/limit", b"7")
            assert consul.request("GET", f"/v1/kv/{place}shown/limit?raw")[1] == 7
            assert [each.key for each in await registry.kv.list("shown")] == ["shown/limit"]
            await registry.kv.delete("shown/limit")


async def test_keys_of_others_that_are_none_are_left_out_and_named_once(
    consul: Consul, caplog: pytest.LogCaptureFixture
) -> None:
    for key in ("others/folder/", "others/a%20b", "others/plain"):
        consul.put(f"/v1/kv/meshkit/{key}", "x")
    async with open_registry(consul.url) as registry:
        for _ in range(2):
            assert [each.key for each in await registry.kv.list("others")] == ["others/plain"]
        consul.request("DELETE", "/v1/kv/meshkit/others/?recurse")
    (warning,) = [each.getMessage() for each in caplog.records if "skipping" in each.getMessage()]
    assert "'meshkit/others/a b'" in warning  # what ends in a slash is a folder of Consul's pages


async def test_an_agent_with_a_lower_limit(make_consul: MakeConsul) -> None:
    consul = make_consul(settings={"limits": {"kv_max_value_size": 1000}})
    async with open_registry(consul.url) as registry:
        await registry.kv.put("a", bytes(1000))
        with pytest.raises(RegistryError, match=r"did not accept PUT /v1/kv/meshkit/a.*1000") as no:
            await registry.kv.put("a", bytes(1001))
        assert "\n" not in str(no.value)
        assert len((await registry.kv.list())[0].value) == 1000 < VALUE_LIMIT


async def test_a_token_that_may_not(make_consul: MakeConsul) -> None:
    """A hidden value is not told from none; a refused write is."""
    consul = make_consul(settings={"acl": {"enabled": True, "default_policy": "deny"}})
    consul.token = consul.put("/v1/acl/bootstrap")["SecretID"]
    rules = 'key_prefix "meshkit/ours/" { policy = "write" }'
    consul.put("/v1/acl/policy", {"Name": "kv", "Rules": rules})
    token = consul.put("/v1/acl/token", {"Policies": [{"Name": "kv"}]})["SecretID"]
    async with open_registry(f"{consul.url}?token={token}") as registry:
        put = await registry.kv.put("ours/a", b"1")
        assert await registry.kv.list() == (put,)
        with pytest.raises(RegistryDenied, match="refused PUT /v1/kv/meshkit/theirs/a"):
            await registry.kv.put("theirs/a", b"1")
        with pytest.raises(RegistryDenied, match="refused the deletion of meshkit/theirs/a"):
            await registry.kv.delete("theirs/a")
        with pytest.raises(RegistryDenied, match="refused the deletion of meshkit/theirs/a"):
            await registry.kv.delete("theirs/a", expect=5)
        with pytest.raises(RegistryDenied, match="refused GET /v1/kv/meshkit/theirs/a"):
            await registry.kv.get("theirs/a")


@pytest.mark.slow
async def test_an_election_is_an_error_and_loses_no_write(consul_cluster: ConsulCluster) -> None:
    async with open_registry(consul_cluster.client.url) as registry:
        kv, accepted, refused = registry.kv, 0, 0

        async def write(expected: int) -> None:
            nonlocal accepted, refused
            while accepted < expected:
                try:
                    await kv.put(f"n{accepted}", b"1")
                    accepted += 1
                except RegistryUnavailable:
                    refused += 1
                    await asyncio.sleep(0.05)

        await write(20)
        async with Watched(kv.watch(), patience=30) as watched:
            await watched.next()
            await asyncio.to_thread(consul_cluster.leader().kill)
            with contextlib.suppress(RegistryUnavailable):
                await watched.nothing(seconds=5)
        async with asyncio.timeout(60):
            await write(40)
        assert len(await kv.list("n")) == 40
