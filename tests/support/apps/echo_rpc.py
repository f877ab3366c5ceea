"""The same over gRPC; both transports in one instance."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from meshkit import MeshService, get
from tests.protos import echo_pb2, echo_pb2_grpc


class EchoRpc(MeshService, echo_pb2_grpc.EchoServicer):
    name = "echo-rpc"
    version = "1.0.0"

    @get("/who")
    async def who(self) -> dict[str, int]:
        return {"pid": os.getpid()}

    async def Say(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        await asyncio.sleep(0.02)
        return echo_pb2.EchoReply(text=request.text, instance=str(os.getpid()))

    Look = Say
