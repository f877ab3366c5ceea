"""A service for tests whose configuration is changed while it runs."""

from __future__ import annotations

import logging

from pydantic import BaseModel, Field

from meshkit import MeshService, get, live_config

log = logging.getLogger("limits")


class Limits(BaseModel, frozen=True):
    max_items: int = Field(10, ge=1)


class Shop(MeshService):
    name = "shop"
    limits = live_config(Limits)

    @get("/limit")
    async def limit(self) -> int:
        return self.limits.max_items

    @limits.on_change
    async def resized(self, old: Limits, new: Limits) -> None:
        log.info("resized from %d to %d", old.max_items, new.max_items)
