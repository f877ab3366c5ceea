"""The hand-written side of failover: registered in the lifespan, checked by Consul over HTTP.

Run by ``python -m uvicorn slow_naive:app --port $PORT`` with PORT, CONSUL_PORT and INTERVAL (of the
check, such as 1s) set.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import consul
from fastapi import FastAPI

PORT = int(os.environ["PORT"])
INSTANCE = f"slow-{PORT}"


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    agent = consul.Consul(host="127.0.0.1", port=int(os.environ["CONSUL_PORT"])).agent
    url = f"http://127.0.0.1:{PORT}/health"
    check = consul.Check.http(url, interval=os.environ["INTERVAL"], timeout="1s")
    agent.service.register("slow", service_id=INSTANCE, address="127.0.0.1", port=PORT, check=check)
    yield
    agent.service.deregister(INSTANCE)


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/work")
async def work() -> dict[str, str]:
    await asyncio.sleep(0.02)
    return {"who": str(os.getpid())}
