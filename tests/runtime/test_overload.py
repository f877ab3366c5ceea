"""A service process that is offered three times what it can answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pyreqwest.client import Client, ClientBuilder

from meshkit.identity import SHED
from tests.support.apps.busy import WORK
from tests.support.overload import Call, offer
from tests.support.processes import Processes, ServiceProcess

SECONDS = 6
CAPACITY = 1 / WORK  # of /compute; the pool of /pool has four times as much


@contextlib.asynccontextmanager
async def http(service: ServiceProcess, path: str) -> AsyncIterator[Call]:
    async with ClientBuilder().build() as client:
        yield lambda: get(client, service.url + path, service.instance)


async def get(client: Client, url: str, instance: str) -> str:
    answer = await client.get(url).timeout(timedelta(seconds=30)).build().send()
    if answer.status == 503:
        assert answer.headers["retry-after"] == "1"
        assert answer.headers[SHED] == instance
        return "shed"
    assert await answer.text() == '"done"'
    return "answered"


@pytest.mark.slow
@pytest.mark.parametrize(("path", "capacity"), [("/compute", CAPACITY), ("/pool", 4 * CAPACITY)])
async def test_at_three_times_its_capacity_a_service_goes_on_answering_in_time(
    services: Processes, path: str, capacity: float
) -> None:
    on = services.start("busy:Busy").ready()
    async with http(on, path) as call:
        usual = await offer(call, rate=capacity / 4, seconds=2)
        assert set(usual) == {"answered"}
        during = await offer(call, rate=capacity * 3, seconds=SECONDS)
        await asyncio.sleep(2)
        after = await offer(call, rate=capacity / 4, seconds=2)
    assert during["answered"] > 0.6 * capacity * SECONDS, during
    assert during["shed"] > capacity * SECONDS, during
    assert set(after) == {"answered"}, after
    on.close()

    off = services.start("busy:Busy", env={"MESHKIT_SHEDDING": "off"}).ready()
    async with http(off, path) as call:
        await offer(call, rate=capacity / 4, seconds=2)
        without = await offer(call, rate=capacity * 3, seconds=SECONDS)
    assert without["shed"] == 0
    assert without["answered"] < during["answered"] / 2, (without, during)
