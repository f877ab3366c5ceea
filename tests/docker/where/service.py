"""A service that says which container answers, over HTTP and gRPC."""

import os
import socket

from meshkit import MeshService, get
from tests.protos import echo_pb2, echo_pb2_grpc


class Where(MeshService, echo_pb2_grpc.EchoServicer):
    name = os.environ["NAME"]

    @get("/host")
    async def host(self) -> str:
        return socket.gethostname()

    async def Look(  # noqa: N802 - gRPC's name
        self, request: echo_pb2.EchoRequest, context: object
    ) -> echo_pb2.EchoReply:
        return echo_pb2.EchoReply(text=socket.gethostname())
