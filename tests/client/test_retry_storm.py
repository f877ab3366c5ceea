"""Three services deep, real servers: failures at the bottom never multiply the load there.

shop calls orders, orders calls stock; stock has two instances which fail. Without a budget each
layer would make three attempts, and stock would get nine times the calls.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from meshkit import Mesh, MeshService, RetryPolicy, Runtime, get, grpc_client, http_client
from meshkit.client.stats import CallStats
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

CALLS = 900
AT_ONCE = 16
# Retries on, second attempts for slowness off: a busy machine is not what is tested here.
POLICY = RetryPolicy(try_timeout=None)

handled: collections.Counter[str] = collections.Counter()
failing = 0.0


def fails() -> bool:
    handled["stock"] += 1
    return random.random() < failing


class Stock(MeshService, echo_pb2_grpc.EchoServicer):
    name = "stock"

    @get("/items/{item}")
    async def read(self, item: int) -> dict[str, int]:
        from fastapi import HTTPException

        if fails():
            raise HTTPException(503)
        return {"item": item}

    async def Look(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        if fails():
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        return EchoReply(text=request.text)


class Orders(MeshService, echo_pb2_grpc.EchoServicer):
    name = "orders"
    stock = http_client("stock", retry=POLICY)
    stock_rpc = grpc_client(echo_pb2_grpc.EchoStub, "stock", retry=POLICY)

    @get("/items/{item}")
    async def read(self, item: int) -> dict[str, int]:
        handled["orders"] += 1
        answer = await self.stock.get(f"/items/{item}")
        return dict(answer.raise_for_status().json())

    async def Look(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        handled["orders"] += 1
        reply: EchoReply = await self.stock_rpc.Look(request)
        return reply


class Shop(MeshService, echo_pb2_grpc.EchoServicer):
    name = "shop"
    orders = http_client("orders", retry=POLICY)
    orders_rpc = grpc_client(echo_pb2_grpc.EchoStub, "orders", retry=POLICY)

    @get("/items/{item}")
    async def read(self, item: int) -> dict[str, int]:
        answer = await self.orders.get(f"/items/{item}")
        return dict(answer.raise_for_status().json())

    async def Look(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        reply: EchoReply = await self.orders_rpc.Look(request)
        return reply


@dataclasses.dataclass
class Caller:
    """Somebody who calls shop; ``call`` returns whether the answer was good."""

    call: Callable[[int], Awaitable[bool]]
    stats: CallStats


def http_caller(mesh: Mesh) -> Caller:
    client = mesh.http("shop", timeout=60, retry=POLICY)

    async def call(number: int) -> bool:
        return (await client.get(f"/items/{number}")).status_code == 200

    return Caller(call, client.stats)


def grpc_caller(mesh: Mesh) -> Caller:
    channel = mesh.channel("shop", timeout=60, retry=POLICY)
    stub = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]

    async def call(number: int) -> bool:
        try:
            reply = await stub.Look(EchoRequest(text=str(number)))
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - or success
            return False
        return bool(reply.text == str(number))

    return Caller(call, channel.stats)


both_transports = pytest.mark.parametrize("caller", [http_caller, grpc_caller])


@contextlib.asynccontextmanager
async def running(caller: Callable[[Mesh], Caller], share: float) -> AsyncIterator[Caller]:
    global failing  # noqa: PLW0603 - of the instances in this process
    failing = share
    handled.clear()
    registry = f"memory://{uuid.uuid4()}"
    async with contextlib.AsyncExitStack() as stack:
        for service in (Stock(), Stock(), Orders(), Orders()):
            await stack.enter_async_context(Runtime(service, registry=registry))
        shop = await stack.enter_async_context(Runtime(Shop(), registry=registry))
        yield caller(shop.mesh)


async def load(caller: Caller) -> tuple[float, float]:
    """Return the share of good answers, and how long it took."""
    began, good = time.monotonic(), 0

    async def calls(first: int) -> None:
        nonlocal good
        for number in range(first, CALLS, AT_ONCE):
            if await caller.call(number):
                good += 1

    await asyncio.gather(*[calls(first) for first in range(AT_ONCE)])
    return good / CALLS, time.monotonic() - began


@both_transports
@pytest.mark.parametrize("share", [0.1, 1.0])
async def test_the_load_below_stays_within_one_budget(
    caller: Callable[[Mesh], Caller], share: float
) -> None:
    async with running(caller, share) as outside:
        good, seconds = await load(outside)
    floor = 10 * (seconds + 10)
    # A budget for each of the processes that call stock, which here are two in one.
    assert handled["stock"] <= 1.2 * CALLS + 2 * floor
    # What failed below had its retries there: nobody above repeats it.
    assert handled["orders"] == CALLS
    assert outside.stats.retried == 0
    if share == 1.0:
        assert good == 0
        assert handled["stock"] > CALLS  # it was tried, as far as the budget went
    else:
        assert good > 0.97  # a tenth failed, and its retries mostly did not


@both_transports
async def test_without_trouble_nothing_is_added(caller: Callable[[Mesh], Caller]) -> None:
    async with running(caller, 0.0) as outside:
        good, _ = await load(outside)
    assert (good, handled["stock"], handled["orders"]) == (1.0, CALLS, CALLS)
