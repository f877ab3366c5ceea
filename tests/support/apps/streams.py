"""A service whose answers last: streams of both transports and a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import WebSocket
from fastapi.responses import StreamingResponse

from meshkit import MeshService, get, websocket
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest


class Streams(MeshService, echo_pb2_grpc.EchoServicer):
    name = "streams"

    @get("/now")
    async def now(self) -> str:
        return "now"

    @get("/ticks/{count}")
    async def ticks(self, count: int) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield b"tick\n"
                await asyncio.sleep(0.05)

        return StreamingResponse(chunks())

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        return EchoReply(text=request.text)

    async def Repeat(  # noqa: N802
        self, request: EchoRequest, context: Any
    ) -> AsyncIterator[EchoReply]:
        for _ in range(request.count):
            yield EchoReply(text=request.text)
            await asyncio.sleep(0.05)
