"""A service for tests: says who answers, can be slow, and can block its event loop."""

from __future__ import annotations

import asyncio
import os
import time

from meshkit import MeshService, get, post


class Echo(MeshService):
    name = "echo"
    version = "1.0.0"
    tags = ("v1", "blue")
    metadata = {"team": "tests"}  # noqa: RUF012 - a declaration

    @get("/who")
    async def who(self) -> dict[str, int]:
        return {"pid": os.getpid()}

    @post("/count")
    async def count(self) -> dict[str, int]:
        return {"pid": os.getpid()}

    @get("/slow")
    async def slow(self, seconds: float) -> dict[str, int]:
        await asyncio.sleep(seconds)
        return {"pid": os.getpid()}

    @get("/block")
    async def block(self, seconds: float) -> dict[str, int]:
        time.sleep(seconds)
        return {"pid": os.getpid()}
