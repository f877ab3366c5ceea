"""A configuration in real servers that go away and come back."""

from __future__ import annotations

import asyncio
import logging

import pytest
from pydantic import BaseModel

from meshkit import LiveConfig
from meshkit.config import live
from meshkit.registry import open_registry
from tests.support.waiting import aeventually

SERVERS = [
    pytest.param("make_consul", marks=pytest.mark.consul),
    pytest.param("make_etcd", marks=pytest.mark.etcd),
    pytest.param("make_zookeeper", marks=pytest.mark.zookeeper),
]


class Limits(BaseModel, frozen=True):
    max_items: int = 10


@pytest.mark.parametrize("maker", SERVERS)
async def test_the_registry_goes_away_and_comes_back(
    request: pytest.FixtureRequest,
    maker: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last values stay; a start meanwhile has the defaults; all are live when it is back."""
    caplog.set_level(logging.INFO, "meshkit.config")
    monkeypatch.setattr(live, "FIRST_LIST", 0.5)
    server = request.getfixturevalue(maker)()
    async with open_registry(server.url) as registry:
        await registry.kv.put("config/orders/max_items", b"20")
    async with LiveConfig(Limits, server.url, "orders") as early:
        assert early.value.max_items == 20
        await asyncio.to_thread(server.stop)
        await aeventually(lambda: asyncio.sleep(0, early.error is not None))
        async with LiveConfig(Limits, server.url, "orders") as late:
            await asyncio.sleep(1)
            assert (early.value.max_items, late.value.max_items) == (20, 10)
            await asyncio.to_thread(server.start)
            async with open_registry(server.url) as registry:
                await registry.kv.put("config/orders/max_items", b"30")
            for config in (early, late):
                await aeventually(lambda: asyncio.sleep(0, config.value.max_items == 30))  # noqa: B023
    lines = [each.getMessage() for each in caplog.records if each.name == "meshkit.config"]
    assert sum("can't be followed" in line for line in lines) == 2, lines
    assert sum("following" in line for line in lines) == 2, lines
    assert not any("\n" in line or "Traceback" in line for line in lines)
