"""A plain grpc.aio server whose calls take 20 ms. usage: python slow_grpc.py PORT"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import grpc.aio
import uvloop
from users_api import users_pb2, users_pb2_grpc


class Slow(users_pb2_grpc.UsersServicer):
    async def GetUser(  # noqa: N802 - the name in the proto
        self, request: users_pb2.GetUserRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> users_pb2.User:
        await asyncio.sleep(0.02)
        return users_pb2.User(name=str(os.getpid()))


async def main(port: int) -> None:
    server = grpc.aio.server()
    users_pb2_grpc.add_UsersServicer_to_server(Slow(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    await ending.wait()
    await server.stop(5)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
