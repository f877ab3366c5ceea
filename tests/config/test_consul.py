"""A configuration in a real Consul that goes away and comes back."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pydantic import BaseModel

from meshkit import LiveConfig
from meshkit.config import live
from meshkit.registry import open_registry
from tests.servers.fixtures import MakeConsul
from tests.support.waiting import aeventually

pytestmark = pytest.mark.consul


class Limits(BaseModel, frozen=True):
    max_items: int = 10


async def test_it_goes_away_and_comes_back(
    make_consul: MakeConsul, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last values stay; a start meanwhile has the defaults; all are live when it is back."""
    caplog.set_level(logging.INFO, "meshkit.config")
    monkeypatch.setattr(live, "FIRST_LIST", 0.5)
    consul = make_consul()
    async with open_registry(consul.url) as registry:
        await registry.kv.put("config/orders/max_items", b"20")
    async with LiveConfig(Limits, consul.url, "orders") as early:
        assert early.value.max_items == 20
        await asyncio.to_thread(consul.stop)
        await aeventually(lambda: asyncio.sleep(0, early.error is not None))
        async with LiveConfig(Limits, consul.url, "orders") as late:
            await asyncio.sleep(1)
            assert (early.value.max_items, late.value.max_items) == (20, 10)
            await asyncio.to_thread(consul.start)
            async with open_registry(consul.url) as registry:
                await registry.kv.put("config/orders/max_items", b"30")
            for config in (early, late):
                await aeventually(lambda: asyncio.sleep(0, config.value.max_items == 30))  # noqa: B023
    lines = [each.getMessage() for each in caplog.records if each.name == "meshkit.config"]
    assert sum("can't be followed" in line for line in lines) == 2, lines
    assert sum("following" in line for line in lines) == 2, lines
    assert not any("\n" in line or "Traceback" in line for line in lines)
