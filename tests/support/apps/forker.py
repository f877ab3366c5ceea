"""A service that forks a child which outlives it."""

from __future__ import annotations

import os
import time

from meshkit import MeshService, post


class Forker(MeshService):
    name = "forker"

    @post("/fork")
    def fork(self) -> dict[str, int]:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        return {"child": child}
