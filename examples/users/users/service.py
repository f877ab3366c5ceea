"""The service: one class, two transports, one store behind both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import grpc
from fastapi import HTTPException, Query, Response
from grpc.aio import ServicerContext
from meshkit import MeshService, delete, get, health_check, post, put
from pydantic import ValidationError

from users import __version__
from users.models import Page, User, UserInput
from users.settings import Settings
from users.store import DuplicateEmailError, UnknownUserError, UserStore
from users_api import users_pb2, users_pb2_grpc

CHUNK = 500  # users that a streaming answer reads from the store at a time

Context = ServicerContext[Any, Any]


class Users(MeshService, users_pb2_grpc.UsersServicer):
    """Creates, finds, changes and removes users."""

    name = "users"
    version = __version__

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    async def on_start(self) -> None:
        self.store = UserStore()
        await self.store.seed(self.settings.seed)

    @health_check(name="store")
    async def check_store(self) -> None:
        """Fails when the store does: nobody calls this instance until it works again."""
        await self.store.check()

    @post("/users", status_code=201)
    async def create_user(self, data: UserInput, response: Response) -> User:
        try:
            user = await self.store.add(data)
        except DuplicateEmailError as error:
            raise HTTPException(409, str(error)) from None
        response.headers["location"] = f"/users/{user.id}"
        return user

    @get("/users")
    async def list_users(
        self,
        cursor: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ) -> Page:
        return await self.store.page(cursor=cursor, limit=limit)

    @get("/users/{user_id}")
    async def read_user(self, user_id: int) -> User:
        try:
            return await self.store.get(user_id)
        except UnknownUserError as error:
            raise HTTPException(404, str(error)) from None

    @put("/users/{user_id}")
    async def replace_user(self, user_id: int, data: UserInput) -> User:
        try:
            return await self.store.replace(user_id, data)
        except UnknownUserError as error:
            raise HTTPException(404, str(error)) from None
        except DuplicateEmailError as error:
            raise HTTPException(409, str(error)) from None

    @delete("/users/{user_id}", status_code=204)
    async def delete_user(self, user_id: int) -> None:
        try:
            await self.store.remove(user_id)
        except UnknownUserError as error:
            raise HTTPException(404, str(error)) from None

    async def GetUser(self, request: users_pb2.GetUserRequest, context: Context) -> users_pb2.User:
        try:
            return _message(await self.store.get(request.id))
        except UnknownUserError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    async def CreateUser(
        self, request: users_pb2.CreateUserRequest, context: Context
    ) -> users_pb2.User:
        try:
            data = UserInput(name=request.name, email=request.email)
            return _message(await self.store.add(data))
        except ValidationError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _explain(error))
        except DuplicateEmailError as error:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, str(error))

    async def ListUsers(
        self, request: users_pb2.ListUsersRequest, context: Context
    ) -> AsyncIterator[users_pb2.User]:
        cursor: int | None = request.after_id
        if request.after_id < 0:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "after_id must not be negative")
        while cursor is not None:
            page = await self.store.page(cursor=cursor, limit=CHUNK)
            for user in page.users:
                yield _message(user)
            cursor = page.next_cursor


def _message(user: User) -> users_pb2.User:
    return users_pb2.User(id=user.id, name=user.name, email=user.email)


def _explain(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}"
