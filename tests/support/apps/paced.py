"""A service whose pace and failures its environment gives; over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

from fastapi import HTTPException

from meshkit import MeshService, get, post
from tests.protos import echo_pb2, echo_pb2_grpc

SECONDS = float(os.environ.get("PACED_SECONDS", "0.02"))
FAILING = float(os.environ.get("PACED_FAILING", "0"))  # share of the calls, at once


class Paced(MeshService, echo_pb2_grpc.EchoServicer):
    name = "paced"

    @get("/work")
    async def work(self) -> dict[str, int]:
        if random.random() < FAILING:
            raise HTTPException(500, "as told")
        await asyncio.sleep(SECONDS)
        return {"pid": os.getpid()}

    @post("/work")
    async def change(self) -> dict[str, int]:
        return await self.work()

    async def Say(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        await asyncio.sleep(SECONDS)
        return echo_pb2.EchoReply(text=request.text, instance=str(os.getpid()))

    Look = Say
