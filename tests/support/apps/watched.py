"""Two services to be watched: a front that calls a back, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import grpc
from fastapi import HTTPException

from meshkit import BreakerPolicy, MeshService, get, grpc_client, http_client
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest

BAD = os.environ.get("WATCHED_BAD") == "1"


class Back(MeshService, echo_pb2_grpc.EchoServicer):
    name = "back"

    @get("/items/{number}")
    async def item(self, number: int) -> int:
        if number == 404:
            raise HTTPException(404)
        return number

    @get("/flaky")
    async def flaky(self) -> str:
        if BAD:
            raise HTTPException(503)
        return "fine"

    @get("/slow")
    async def slow(self) -> None:
        await asyncio.sleep(1)

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        if request.text == "nobody":
            await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
        return EchoReply(text=request.text)


class Front(MeshService):
    name = "front"
    back = http_client("back", balancer="round_robin", breaker=BreakerPolicy())
    rpc = grpc_client(echo_pb2_grpc.EchoStub, "back")

    @get("/items/{number}")
    async def item(self, number: int) -> int:
        return (await self.back.get(f"/items/{number}")).status_code

    @get("/flaky")
    async def flaky(self) -> int:
        return (await self.back.get("/flaky")).status_code

    @get("/say/{text}")
    async def say(self, text: str) -> str:
        answer: Any = await self.rpc.Say(EchoRequest(text=text))
        return str(answer.text)


class RpcOnly(MeshService, echo_pb2_grpc.EchoServicer):
    name = "rpc-only"

    async def Say(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        return EchoReply(text=request.text)
