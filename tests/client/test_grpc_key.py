"""A key of a gRPC call keeps calls together, where the balancer does that."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

from meshkit import Mesh, MeshService, Runtime
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoReply, EchoRequest
from tests.support.waiting import aeventually

KEYS = [f"cart-{number}" for number in range(30)]


class Carts(MeshService, echo_pb2_grpc.EchoServicer):
    name = "carts"
    called = ""

    async def Look(self, request: EchoRequest, context: Any) -> EchoReply:  # noqa: N802
        return EchoReply(instance=self.called)


async def test_calls_with_one_key_go_to_one_instance() -> None:
    registry = f"memory://{uuid.uuid4()}"
    async with contextlib.AsyncExitStack() as stack:
        for name in ("a", "b", "c"):
            carts = Carts()
            carts.called = name
            await stack.enter_async_context(Runtime(carts, registry=registry, drain_delay=0))
        mesh = await stack.enter_async_context(Mesh(registry))
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, "carts", balancer="hash")

        async def who(key: str | None) -> str:
            return str((await stub.Look.using(key=key)(EchoRequest())).instance)

        async def all_known() -> bool:
            return {await who(None) for _ in range(30)} == {"a", "b", "c"}

        await aeventually(all_known)
        first = {key: await who(key) for key in KEYS}
        assert {key: await who(key) for key in KEYS} == first
        assert set(first.values()) == {"a", "b", "c"}
        bound = dict(stub.Look._bound)
        assert len(bound) == 3  # once for all keys, and not anew for each call
        assert stub.Look.using(key="cart-0")._bound == bound
        kept = stub.Look.using(key=KEYS[0]).using(idempotent=True)  # what is not given stays
        assert {(await kept(EchoRequest())).instance for _ in range(10)} == {first[KEYS[0]]}
