"""The plain side: a FastAPI application as it is run by ``python -m uvicorn plain:app``."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Query
from user_store import Page, User, UserInput, UserStore

app = FastAPI(title="users")
store = UserStore()


@app.post("/users", status_code=201)
async def create_user(data: UserInput) -> User:
    return store.add(data)


@app.get("/users")
async def list_users(limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Page:
    return store.page(limit)


@app.get("/users/{user_id}")
async def read_user(user_id: int) -> User:
    user = store.get(user_id)
    if user is None:
        raise HTTPException(404, f"no user {user_id}")
    return user
