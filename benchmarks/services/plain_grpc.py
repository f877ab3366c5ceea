"""The plain side with both transports: uvicorn and grpc.aio in one loop, as written by hand.

usage: python plain_grpc.py HTTP_PORT GRPC_PORT
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import grpc.aio
import uvicorn
import uvloop
from plain import app, store
from users_api import users_pb2, users_pb2_grpc


class UsersServicer(users_pb2_grpc.UsersServicer):
    async def GetUser(  # noqa: N802 - the name in the proto
        self, request: users_pb2.GetUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> users_pb2.User:
        user = store.get(request.id)
        if user is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no user {request.id}")
        return users_pb2.User(id=user.id, name=user.name, email=user.email)


async def main(http_port: int, grpc_port: int) -> None:
    rpc = grpc.aio.server()
    users_pb2_grpc.add_UsersServicer_to_server(UsersServicer(), rpc)  # type: ignore[no-untyped-call]
    rpc.add_insecure_port(f"127.0.0.1:{grpc_port}")
    await rpc.start()
    config = uvicorn.Config(
        app, port=http_port, http="httptools", loop="uvloop", ws="none", access_log=False
    )
    await uvicorn.Server(config).serve()
    await rpc.stop(1)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
