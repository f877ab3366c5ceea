"""The meshkit side with both transports, run by ``meshkit run mesh_grpc:UsersGrpc``."""

from __future__ import annotations

from typing import Any

import grpc
from grpc.aio import ServicerContext
from mesh import Users
from users_api import users_pb2, users_pb2_grpc


class UsersGrpc(Users, users_pb2_grpc.UsersServicer):
    name = "users"

    async def GetUser(  # noqa: N802 - the name in the proto
        self, request: users_pb2.GetUserRequest, context: ServicerContext[Any, Any]
    ) -> users_pb2.User:
        user = self.store.get(request.id)
        if user is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no user {request.id}")
        return users_pb2.User(id=user.id, name=user.name, email=user.email)
