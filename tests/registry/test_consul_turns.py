"""Writes about one instance on ``consul://``, also those that nobody waits for any more."""

import asyncio
import dataclasses
import random

import pytest

from meshkit.errors import RegistryError
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.registry.consul.turns import Turns
from tests.servers import Consul

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
AT_ONCE = 12


def closed() -> RegistryError:
    return RegistryError("closed")


@pytest.mark.consul
async def test_a_registration_that_was_given_up_does_not_come_after_the_end(consul: Consul) -> None:
    moments = random.Random(1)

    async def register_and_leave(number: int) -> None:
        instance = dataclasses.replace(USERS, id=f"given-up-{number}", service="given-up")
        try:
            async with asyncio.timeout(moments.uniform(0, 0.03)):
                await registry.register(instance)
        except TimeoutError:
            pass
        await registry.deregister(instance.id)

    async with open_registry(consul.url) as registry, open_registry(consul.url) as reader:
        await registry.register(USERS)
        for first in range(0, 50 * AT_ONCE, AT_ONCE):
            await asyncio.gather(*map(register_and_leave, range(first, first + AT_ONCE)))
        await asyncio.sleep(0.5)  # what still were on its way
        assert (await reader.instances("given-up")).instances == ()
        await registry.deregister(USERS.id)


async def test_a_write_goes_on_without_its_caller_and_the_next_one_waits() -> None:
    turns, done, go = Turns(closed), list[str](), asyncio.Event()
    tasks = len(asyncio.all_tasks())

    async def slow() -> None:
        await go.wait()
        done.append("slow")

    async def quick() -> str:
        done.append("quick")
        return "result"

    given_up = asyncio.create_task(turns.take("a", slow))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert await turns.take("b", quick) == "result"  # another instance's
    asyncio.get_running_loop().call_later(0.05, go.set)
    assert await turns.take("a", quick) == "result"
    assert done == ["quick", "slow", "quick"]
    assert len(asyncio.all_tasks()) == tasks


async def test_one_that_hangs_does_not_hold_up_the_next_one_for_long() -> None:
    turns = Turns(closed)
    hanging = asyncio.create_task(turns.take("a", asyncio.Event().wait))
    await asyncio.sleep(0)

    async def quick() -> str:
        return "result"

    assert await asyncio.wait_for(turns.take("a", quick), 10) == "result"
    await turns.aclose()
    with pytest.raises(RegistryError, match="closed"):
        await asyncio.wait_for(hanging, 10)


async def test_a_failure_is_its_callers_alone() -> None:
    turns = Turns(closed)

    async def fail() -> None:
        raise RegistryError("refused")

    with pytest.raises(RegistryError, match="refused"):
        await turns.take("a", fail)
    assert await turns.take("a", lambda: asyncio.sleep(0, "result")) == "result"
    await turns.aclose()
    await turns.aclose()
