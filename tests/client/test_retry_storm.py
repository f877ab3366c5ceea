"""Three services deep, real servers: failures at the bottom never multiply the load there.

shop calls orders, orders calls stock; stock has two instances which fail. Without a budget each
layer would make three attempts, and stock would get nine times the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator

import pytest

from meshkit import MeshService, RetryPolicy, Runtime, get, http_client
from meshkit.client.http import HttpClient

CALLS = 900
AT_ONCE = 16
# Retries on, second attempts for slowness off: a busy machine is not what is tested here.
POLICY = RetryPolicy(try_timeout=None)


class Stock(MeshService):
    name = "stock"
    failing = 0.0
    handled = 0

    @get("/items/{item}")
    async def read(self, item: int) -> dict[str, int]:
        from fastapi import HTTPException

        Stock.handled += 1
        if random.random() < Stock.failing:
            raise HTTPException(503)
        return {"item": item}


class Orders(MeshService):
    name = "orders"
    stock = http_client("stock", retry=POLICY)
    handled = 0

    @get("/items/{item}")
    async def read(self, item: int) -> dict[str, int]:
        Orders.handled += 1
        answer = await self.stock.get(f"/items/{item}")
        return dict(answer.raise_for_status().json())


class Shop(MeshService):
    name = "shop"
    orders = http_client("orders", retry=POLICY)

    @get("/items/{item}")
    async def read(self, item: int) -> dict[str, int]:
        answer = await self.orders.get(f"/items/{item}")
        return dict(answer.raise_for_status().json())


@contextlib.asynccontextmanager
async def running(failing: float) -> AsyncIterator[HttpClient]:
    Stock.failing, Stock.handled, Orders.handled = failing, 0, 0
    registry = f"memory://{uuid.uuid4()}"
    async with contextlib.AsyncExitStack() as stack:
        for service in (Stock(), Stock(), Orders(), Orders()):
            await stack.enter_async_context(Runtime(service, registry=registry))
        shop = await stack.enter_async_context(Runtime(Shop(), registry=registry))
        yield shop.mesh.http("shop", timeout=60, retry=POLICY)


async def load(client: HttpClient) -> tuple[float, float]:
    """Return the share of good answers, and how long it took."""
    began, good = time.monotonic(), 0

    async def caller(first: int) -> None:
        nonlocal good
        for number in range(first, CALLS, AT_ONCE):
            answer = await client.get(f"/items/{number}")
            good += answer.status_code == 200

    await asyncio.gather(*[caller(first) for first in range(AT_ONCE)])
    return good / CALLS, time.monotonic() - began


@pytest.mark.parametrize("failing", [0.1, 1.0])
async def test_the_load_below_stays_within_one_budget(failing: float) -> None:
    async with running(failing) as client:
        good, seconds = await load(client)
    floor = 10 * (seconds + 10)
    # A budget for each of the processes that call stock, which here are two in one.
    assert Stock.handled <= 1.2 * CALLS + 2 * floor
    # What failed below had its retries there: nobody above repeats it.
    assert Orders.handled == CALLS
    assert client.stats.retried == 0
    if failing == 1.0:
        assert good == 0
        assert Stock.handled > CALLS  # it was tried, as far as the budget went
    else:
        assert good > 0.97  # a tenth failed, and its retries mostly did not


async def test_without_trouble_nothing_is_added() -> None:
    async with running(0.0) as client:
        good, _ = await load(client)
    assert (good, Stock.handled, Orders.handled) == (1.0, CALLS, CALLS)
