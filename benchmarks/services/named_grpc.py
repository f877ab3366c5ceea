"""A plain grpc.aio server that says who answered; it prints its port. usage: named_grpc.py NAME"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio
import uvloop
from users_api import users_pb2, users_pb2_grpc


class UsersServicer(users_pb2_grpc.UsersServicer):
    def __init__(self, name: str) -> None:
        self._name = name

    async def GetUser(  # noqa: N802 - the name in the proto
        self,
        request: users_pb2.GetUserRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> users_pb2.User:
        return users_pb2.User(id=request.id, name=self._name)


async def main(name: str) -> None:
    server = grpc.aio.server()
    users_pb2_grpc.add_UsersServicer_to_server(UsersServicer(name), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
