"""The hand-written side of chain: a client for the life of the process, to a fixed address.

Run by ``python -m uvicorn orders_plain:app`` with USERS_HTTP and USERS_GRPC (host:port) set.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import httpx
import httpx2
from fastapi import FastAPI
from order import Order
from users_api import users_pb2, users_pb2_grpc

TIMEOUT = 10.0
USERS = f"http://{os.environ['USERS_HTTP']}"
clients: dict[str, Any] = {}


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with (
        httpx.AsyncClient(base_url=USERS, timeout=TIMEOUT) as clients["httpx"],
        httpx2.AsyncClient(base_url=USERS, timeout=TIMEOUT) as clients["httpx2"],
        grpc.aio.insecure_channel(os.environ["USERS_GRPC"]) as channel,
    ):
        clients["grpc"] = users_pb2_grpc.UsersStub(channel)  # type: ignore[no-untyped-call]
        yield


app = FastAPI(title="orders", lifespan=lifespan)


@app.get("/httpx/orders/{order_id}")
async def over_httpx(order_id: int) -> Order:
    answer = await clients["httpx"].get(f"/users/{order_id}")
    return Order(id=order_id, ordered_by=answer.raise_for_status().json()["name"])


@app.get("/httpx2/orders/{order_id}")
async def over_httpx2(order_id: int) -> Order:
    answer = await clients["httpx2"].get(f"/users/{order_id}")
    return Order(id=order_id, ordered_by=answer.raise_for_status().json()["name"])


@app.get("/grpc/orders/{order_id}")
async def over_grpc(order_id: int) -> Order:
    request = users_pb2.GetUserRequest(id=order_id)
    user = await clients["grpc"].GetUser(request, timeout=TIMEOUT)
    return Order(id=order_id, ordered_by=user.name)
