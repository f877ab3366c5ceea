from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from fastapi import HTTPException
from meshkit import HttpClient, Mesh, MeshService, Runtime, get

from orders.service import Orders
from users_api import users_pb2, users_pb2_grpc

REGISTRY = "memory://orders-tests"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class StandIn(MeshService, users_pb2_grpc.UsersServicer):
    """A users service on the mesh, with one user, that fails on demand."""

    name = "users"

    def __init__(self) -> None:
        self.users = {1: "Ann", 51: "Late Lee"}
        self.broken = False

    @get("/users/{user_id}")
    async def read_user(self, user_id: int) -> dict[str, object]:
        if self.broken:
            raise HTTPException(500, "broken")
        if user_id not in self.users:
            raise HTTPException(404, "nobody")
        return {"id": user_id, "name": self.users[user_id], "email": "someone@example.com"}

    async def GetUser(
        self,
        request: users_pb2.GetUserRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> users_pb2.User:
        if self.broken:
            await context.abort(grpc.StatusCode.INTERNAL, "broken")
        if request.id not in self.users:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
        return users_pb2.User(
            id=request.id, name=self.users[request.id], email="someone@example.com"
        )


@pytest.fixture
async def users() -> AsyncIterator[StandIn]:
    service = StandIn()
    async with Runtime(service, registry=REGISTRY):
        yield service


@pytest.fixture
async def orders() -> AsyncIterator[HttpClient]:
    """Call a running orders service, as other services call it."""
    async with Runtime(Orders(), registry=REGISTRY), Mesh(REGISTRY) as mesh:
        yield mesh.http("orders")
