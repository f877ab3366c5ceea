"""A service with little capacity: one route that computes, one that waits for a small pool."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from meshkit import MeshService, get, post
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

WORK = 0.01  # seconds


def compute(seconds: float = WORK) -> None:
    """Take the event loop's time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Busy(MeshService, echo_pb2_grpc.EchoServicer):
    name = "busy"

    async def on_start(self) -> None:
        self.pool = asyncio.Semaphore(1)
        self.handled = 0

    @get("/compute")
    async def computed(self) -> str:
        compute()
        self.handled += 1
        return "done"

    @get("/pool")
    async def pooled(self) -> str:
        async with self.pool:
            await asyncio.sleep(WORK)
        self.handled += 1
        return "done"

    @get("/handled")
    async def count(self) -> int:
        return self.handled

    @post("/who")
    async def who(self) -> int:
        return os.getpid()

    @get("/hold")
    async def hold(self) -> None:
        await asyncio.sleep(3600)

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        if request.text == "who":
            return EchoReply(instance=str(os.getpid()))
        if request.text == "hold":
            await asyncio.sleep(3600)
        if request.text == "compute":
            compute()
        else:
            async with self.pool:
                await asyncio.sleep(WORK)
        self.handled += 1
        return EchoReply(text=request.text)
