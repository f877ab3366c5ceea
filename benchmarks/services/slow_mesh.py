"""The meshkit side of failover: calls of 20 ms over HTTP and gRPC, answered with who answered.

Run by ``meshkit run slow_mesh:Slow``.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from grpc.aio import ServicerContext
from users_api import users_pb2, users_pb2_grpc

from meshkit import MeshService, get, post

SECONDS = 0.02


class Slow(MeshService, users_pb2_grpc.UsersServicer):
    name = "slow"

    @get("/work")
    async def read(self) -> dict[str, str]:
        await asyncio.sleep(SECONDS)
        return {"who": str(os.getpid())}

    @post("/work")
    async def write(self) -> dict[str, str]:
        return await self.read()

    # The names are those in the proto. By it GetUser has no side effects, and CreateUser may.

    async def GetUser(  # noqa: N802
        self, request: users_pb2.GetUserRequest, context: ServicerContext[Any, Any]
    ) -> users_pb2.User:
        await asyncio.sleep(SECONDS)
        return users_pb2.User(name=str(os.getpid()))

    async def CreateUser(  # noqa: N802
        self, request: users_pb2.CreateUserRequest, context: ServicerContext[Any, Any]
    ) -> users_pb2.User:
        await asyncio.sleep(SECONDS)
        return users_pb2.User(name=str(os.getpid()))
