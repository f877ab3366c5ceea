"""A service that can be made to fail, under a name that its environment gives."""

from __future__ import annotations

import os
import time

from meshkit import MeshService, get, post


class Faulty(MeshService):
    name = os.environ.get("FAULTY_NAME", "faulty")

    async def on_start(self) -> None:
        self.calls = 0

    @get("/who")
    async def who(self) -> dict[str, int]:
        self.calls += 1
        return {"pid": os.getpid()}

    @post("/count")
    async def count(self) -> dict[str, int]:
        self.calls += 1
        return {"pid": os.getpid()}

    @get("/calls")
    async def called(self) -> dict[str, int]:
        return {"calls": self.calls}

    @get("/block")
    async def block(self, seconds: float) -> None:
        time.sleep(seconds)

    @post("/fork")
    def fork(self) -> dict[str, int]:
        """Fork a child that outlives us and does nothing."""
        child = os.fork()
        if child == 0:
            time.sleep(120)
            os._exit(0)
        return {"child": child}

    @get("/peers")
    async def peers(self) -> dict[str, list[str]]:
        """Whom this process sees under its own name, and would call."""
        snapshot = await self.mesh.target(self.name).subscription.known()
        return {"up": [each.id for each in snapshot.up]}

    @get("/clock")
    async def clock(self) -> dict[str, float]:
        return {"time": time.time()}
