"""The service: takes orders, and asks the users service who is ordering."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from meshkit import MeshService, get, grpc_client, http_client, post

from orders import __version__
from orders.models import Calls, Order, OrderInput, OrderView, Quote, Stats, User, Via
from orders.people import (
    Found,
    UnknownUserError,
    UsersFailedError,
    UsersUnavailableError,
    find_over_grpc,
    find_over_http,
)
from orders.store import OrderStore, UnknownOrderError
from users_api import users_pb2_grpc

EARLY_USERS = 50  # the first to register
EARLY_DISCOUNT = 10  # percent

Id = Annotated[int, Path(ge=1)]
Cents = Annotated[int, Query(ge=1, le=100_000_000)]


class Orders(MeshService):
    """Takes orders and quotes prices."""

    name = "orders"
    version = __version__

    users = http_client("users")
    users_rpc = grpc_client(users_pb2_grpc.UsersStub, "users")

    def __init__(self) -> None:
        map_errors(self.app)

    async def on_start(self) -> None:
        self.store = OrderStore()

    @post("/orders", status_code=201)
    async def create_order(self, data: OrderInput, response: Response) -> Order:
        try:
            await find_over_http(self.users, data.user_id)
        except UnknownUserError as error:
            raise HTTPException(422, str(error)) from None
        order = await self.store.add(data)
        response.headers["location"] = f"/orders/{order.id}"
        return order

    @get("/orders/{order_id}")
    async def read_order(self, order_id: Id) -> OrderView:
        try:
            order = await self.store.get(order_id)
        except UnknownOrderError as error:
            raise HTTPException(404, str(error)) from None
        return OrderView(**dict(order), user=await self._find_who_ordered(order))

    @get("/quote/{user_id}")
    async def quote(self, user_id: Id, via: Via = Via.HTTP, amount_cents: Cents = 1000) -> Quote:
        try:
            found = await self._find(user_id, via)
        except UnknownUserError as error:
            raise HTTPException(404, str(error)) from None
        discount = EARLY_DISCOUNT if user_id <= EARLY_USERS else 0
        return Quote(
            user_id=user_id,
            user_name=found.user.name,
            total_cents=amount_cents - amount_cents * discount // 100,
            via=via,
            users_instance=found.instance,
        )

    @get("/stats")
    async def stats(self) -> Stats:
        http, grpc = self.users.stats, self.mesh.channel("users").stats
        return Stats(http=Calls(**asdict(http)), grpc=Calls(**asdict(grpc)))

    async def _find(self, user_id: int, via: Via) -> Found:
        if via is Via.HTTP:
            return await find_over_http(self.users, user_id)
        return await find_over_grpc(self.users_rpc, user_id)

    async def _find_who_ordered(self, order: Order) -> User | None:
        try:
            return (await find_over_grpc(self.users_rpc, order.user_id)).user
        except UnknownUserError:
            return None


def map_errors(app: FastAPI) -> None:
    """Answer 503 when the users service is away and 502 when it fails, on every route."""

    async def unavailable(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503, headers={"retry-after": "1"})

    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 502)

    app.add_exception_handler(UsersUnavailableError, unavailable)
    app.add_exception_handler(UsersFailedError, failed)
