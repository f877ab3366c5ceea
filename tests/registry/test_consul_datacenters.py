"""Two datacenters that know each other: each reads the other, and survives its loss."""

import asyncio
import dataclasses

import pytest

from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.registry.base import Datacenters
from meshkit.testing.watched import Watched
from tests.servers import ConsulCluster

pytestmark = [pytest.mark.consul, pytest.mark.slow]

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


async def test_each_reads_the_other(consul_datacenters: list[ConsulCluster]) -> None:
    here, there = (cluster.servers[0].url for cluster in consul_datacenters)
    async with open_registry(here) as near, open_registry(there) as far:
        assert isinstance(near, Datacenters)
        assert isinstance(far, Datacenters)
        assert await near.datacenters() == ("dc1", "dc2")
        assert await far.datacenters() == ("dc2", "dc1")
        async with open_registry(f"{here}?dc=dc2") as reading:
            assert isinstance(reading, Datacenters)
            assert await reading.datacenters() == ("dc2", "dc1")
        seen = near.in_datacenter("dc2")
        assert (seen.url, seen.read_only) == (f"{here}?dc=dc2", True)
        async with Watched(seen.watch("users"), patience=20) as watched:
            assert (await watched.next()).instances == ()
            await far.register(USERS)
            await watched.until(lambda snapshot: len(snapshot.up) == 1)
            assert [each.name for each in await seen.services()] == ["users"]
            assert (await near.instances("users")).instances == ()
            await far.deregister(USERS.id)
            await watched.until(lambda snapshot: not snapshot.instances)
        put = await far.kv.put("limit", b"7")
        assert await seen.kv.list() == (put,)
        assert await near.kv.list() == ()
        with pytest.raises(RegistryError, match="is read-only"):
            await seen.register(USERS)
        await seen.aclose()
        assert (await near.instances("users")).instances == ()  # closing the view closes nothing


async def test_an_unknown_and_a_dead_one(consul_datacenters: list[ConsulCluster]) -> None:
    here, there = (cluster.servers[0] for cluster in consul_datacenters)
    async with open_registry(here.url) as near:
        assert isinstance(near, Datacenters)
        await near.register(dataclasses.replace(USERS))
        unknown, other = near.in_datacenter("nowhere"), near.in_datacenter("dc2")
        async with Watched(other.watch("users"), patience=60) as watched:
            assert (await watched.next()).instances == ()
            await asyncio.to_thread(there.kill)
            with pytest.raises(RegistryUnavailable) as lost:
                await watched.until(lambda _: False)
        for registry in (unknown, other):
            for read in (registry.instances("users"), registry.services(), registry.kv.get("a")):
                with pytest.raises(RegistryUnavailable) as caught:
                    await read
                assert "\n" not in str(caught.value) + str(lost.value)
        assert "No path to datacenter" in str(await failure(unknown.instances("users")))
        assert (await near.instances("users")).up


async def failure(read: object) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        await read  # type: ignore[misc]
    return caught.value
