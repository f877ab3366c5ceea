"""A hand-written registration as tutorials show it: in the lifespan, with a fixed port.

Run by ``python -m uvicorn naive:app --port $PORT`` with PORT, CONSUL_PORT and INSTANCE set.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import consul
from fastapi import FastAPI

INSTANCE = os.environ["INSTANCE"]
PORT = int(os.environ["PORT"])


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    agent = consul.Consul(host="127.0.0.1", port=int(os.environ["CONSUL_PORT"])).agent
    agent.service.register(
        "users-naive",
        service_id=INSTANCE,
        address="127.0.0.1",
        port=PORT,
        check=consul.Check.http(f"http://127.0.0.1:{PORT}/health", interval="10s"),
    )
    yield
    agent.service.deregister(INSTANCE)


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/users/{user_id}")
async def read_user(user_id: int) -> dict[str, str | int]:
    return {"id": user_id, "name": f"User {user_id}"}
