"""A service with little capacity: one route that computes, one that waits for a small pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from meshkit import MeshService, get
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

WORK = 0.01  # seconds


def compute(seconds: float = WORK) -> None:
    """Take the event loop's time; in CPU time, so that a busy machine does not change it much."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Busy(MeshService, echo_pb2_grpc.EchoServicer):
    name = "busy"

    async def on_start(self) -> None:
        self.pool = asyncio.Semaphore(4)

    @get("/compute")
    async def computed(self) -> str:
        compute()
        return "done"

    @get("/pool")
    async def pooled(self) -> str:
        async with self.pool:
            await asyncio.sleep(WORK)
        return "done"

    @get("/stream")
    async def stream(self) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(600):
                yield b"tick\n"
                await asyncio.sleep(0.1)

        return StreamingResponse(chunks())

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        if request.text == "compute":
            compute()
        else:
            async with self.pool:
                await asyncio.sleep(WORK)
        return EchoReply(text=request.text)
