"""The meshkit side: the same routes as in plain.py, run by ``meshkit run mesh:Users``."""

from __future__ import annotations

from typing import Annotated

from fastapi import HTTPException, Query
from user_store import Page, User, UserInput, UserStore

from meshkit import MeshService, get, post


class Users(MeshService):
    name = "users"

    def __init__(self) -> None:
        self.store = UserStore()

    @post("/users", status_code=201)
    async def create_user(self, data: UserInput) -> User:
        return self.store.add(data)

    @get("/users")
    async def list_users(self, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Page:
        return self.store.page(limit)

    @get("/users/{user_id}")
    async def read_user(self, user_id: int) -> User:
        user = self.store.get(user_id)
        if user is None:
            raise HTTPException(404, f"no user {user_id}")
        return user
