"""A service for tests: a stream of events and a WebSocket, both saying which process answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import Request, WebSocket
from fastapi.responses import StreamingResponse

from meshkit import MeshService, get, websocket


class Live(MeshService):
    name = "live"

    @get("/ticks")
    async def ticks(self, request: Request) -> StreamingResponse:
        begin = int(request.headers.get("last-event-id", "0")) + 1
        return StreamingResponse(count_from(begin), media_type="text/event-stream")

    @websocket("/talk")
    async def talk(self, socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_json({"pid": os.getpid(), "text": text})


async def count_from(begin: int) -> AsyncIterator[str]:
    for number in range(begin, begin + 10_000):
        yield f"id: {number}\ndata: {os.getpid()}\n\n"
        await asyncio.sleep(0.02)
