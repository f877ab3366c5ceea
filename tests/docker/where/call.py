"""Calls the service by its name, over HTTP and gRPC: ``call.py REGISTRY NAME``."""

import asyncio
import sys

from meshkit import Mesh
from tests.protos import echo_pb2, echo_pb2_grpc


async def call(registry: str, name: str) -> tuple[str, str]:
    """Return which host answers over each; wait for it to be registered."""
    async with Mesh(registry, timeout=30) as mesh, asyncio.timeout(60):
        while not (await mesh.instances(name)).instances:
            await asyncio.sleep(0.2)
        http = str((await mesh.http(name).get("/host")).json())
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, name)
        return http, str((await stub.Look(echo_pb2.EchoRequest())).text)


if __name__ == "__main__":
    print(*asyncio.run(call(sys.argv[1], sys.argv[2])))
