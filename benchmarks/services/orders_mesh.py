"""The meshkit side of chain: orders that ask users for who ordered, over HTTP or gRPC.

Run by ``meshkit run orders_mesh:Orders``.
"""

from __future__ import annotations

from order import Order
from users_api import users_pb2, users_pb2_grpc

from meshkit import MeshService, get, grpc_client, http_client


class Orders(MeshService):
    name = "orders"
    users = http_client("users")
    users_rpc = grpc_client(users_pb2_grpc.UsersStub, "users")

    @get("/http/orders/{order_id}")
    async def over_http(self, order_id: int) -> Order:
        answer = await self.users.get(f"/users/{order_id}")
        return Order(id=order_id, ordered_by=answer.raise_for_status().json()["name"])

    @get("/grpc/orders/{order_id}")
    async def over_grpc(self, order_id: int) -> Order:
        user = await self.users_rpc.GetUser(users_pb2.GetUserRequest(id=order_id))
        return Order(id=order_id, ordered_by=user.name)
