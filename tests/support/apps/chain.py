"""Three services that call each other, over HTTP or gRPC as each call says.

``hops`` names the transports of the calls still to be made, as in ``http,grpc``; ``mode`` what
happens at the end of the chain.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from meshkit import CallTimeout, MeshService, context, get, grpc_client, http_client
from tests.protos import echo_pb2, echo_pb2_grpc

log = logging.getLogger("chain")


class Link(MeshService, echo_pb2_grpc.EchoServicer):
    onward_http: Any
    onward_grpc: Any

    @get("/go")
    async def go(self, hops: str, mode: str) -> dict[str, Any]:
        return await self._noted(hops, mode)

    async def Say(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        hops, mode = request.text.split(" ")
        return echo_pb2.EchoReply(text=json.dumps(await self._noted(hops, mode)))

    async def _noted(self, hops: str, mode: str) -> dict[str, Any]:
        log.info("began")
        try:
            return await self._go(hops, mode)
        except asyncio.CancelledError:
            log.info("cancelled")
            raise
        except CallTimeout as error:
            log.info("timeout: %s", error)
            raise

    async def _go(self, hops: str, mode: str) -> dict[str, Any]:
        if not hops:
            return await self._end(mode)
        if mode == "short" and self.name == "users":
            try:
                with context.deadline_in(0.3):
                    return await self._onward(hops, "hang")
            except CallTimeout as error:
                return {"timeout": str(error), "left": context.remaining()}
        return await self._onward(hops, mode)

    async def _onward(self, hops: str, mode: str) -> dict[str, Any]:
        transport, _, rest = hops.partition(",")
        found: dict[str, Any]
        if transport == "http":
            params = {"hops": rest, "mode": mode}
            found = (await self.onward_http.get("/go", params=params)).json()
        else:
            request = echo_pb2.EchoRequest(text=f"{rest} {mode}")
            found = json.loads((await self.onward_grpc.Say(request)).text)
        return found

    async def _end(self, mode: str) -> dict[str, Any]:
        if mode == "hang":
            await asyncio.sleep(60)
        call = context.current()
        return {
            "service": self.name,
            "request_id": call.request_id,
            "traceparent": call.traceparent,
            "tracestate": call.tracestate,
            "baggage": dict(call.baggage),
            "left": call.remaining,
        }


class Ledger(Link):
    name = "ledger"


class Users(Link):
    name = "users"
    onward_http = http_client("ledger", timeout=30)
    onward_grpc = grpc_client(echo_pb2_grpc.EchoStub, "ledger", timeout=30)


class Orders(Link):
    name = "orders"
    onward_http = http_client("users", timeout=30)
    onward_grpc = grpc_client(echo_pb2_grpc.EchoStub, "users", timeout=30)
