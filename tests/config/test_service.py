"""``live_config`` in a service: declared, known before the hooks, followed until the stop."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel

from meshkit import ConfigError, MeshService, Runtime, live_config
from meshkit.config.declared import live_settings
from meshkit.registry import open_registry
from tests.support.waiting import aeventually


class Limits(BaseModel, frozen=True):
    max_items: int = 10


class Needy(BaseModel):
    url: str


class Base(MeshService):
    limits = live_config(Limits)

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, int]] = []
        self.at_start = self.at_stop = 0

    async def on_start(self) -> None:
        self.at_start = self.limits.max_items
        async with open_registry("local://") as registry:
            await registry.kv.put("config/orders/max_items", b"21")
        await aeventually(lambda: asyncio.sleep(0, self.limits.max_items == 21))
        assert self.heard == []  # nobody is told before on_start has ended

    async def on_stop(self) -> None:
        self.at_stop = self.limits.max_items

    @limits.on_change
    def resized(self, old: Limits, new: Limits) -> None:
        self.heard.append(("base", old.max_items, new.max_items))


class Orders(Base):
    name = "orders"

    def resized(self, old: Limits, new: Limits) -> None:
        self.heard.append(("resized", old.max_items, new.max_items))

    @Base.limits.on_change
    async def noted(self, old: Limits, new: Limits) -> None:
        self.heard.append(("noted", old.max_items, new.max_items))


async def test_values_are_known_before_on_start_and_followed_until_the_stop() -> None:
    service = Orders()
    async with open_registry("local://") as registry:
        await registry.kv.put("config/orders/max_items", b"20")
        async with Runtime(service, registry="local://", drain_delay=0):
            assert service.at_start == 20
            await aeventually(lambda: asyncio.sleep(0, len(service.heard) == 2))
            await registry.kv.put("config/orders/max_items", b"22")
            await aeventually(lambda: asyncio.sleep(0, len(service.heard) == 4))
        assert service.at_stop == 22
        await registry.kv.put("config/orders/max_items", b"23")
        await asyncio.sleep(0.3)
    assert service.limits.max_items == 22
    assert sorted(service.heard) == [
        ("noted", 20, 21),
        ("noted", 21, 22),
        ("resized", 20, 21),
        ("resized", 21, 22),
    ]


async def test_a_missing_required_value_is_a_clear_error_at_the_start(tmp_path: Path) -> None:
    class Caller(MeshService):
        name = "caller"
        needs = live_config(Needy)
        started: ClassVar[bool] = False

        async def on_start(self) -> None:
            type(self).started = True

    tasks = asyncio.all_tasks()
    with pytest.raises(
        ConfigError, match=r"Needy \(config/caller/\) can't be made: config/caller/"
    ):
        await Runtime(Caller(), registry="local://").start()
    assert not Caller.started
    assert asyncio.all_tasks() == tasks


async def test_an_engine_without_values_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(MeshService):
        name = "plain"
        limits = live_config(Limits)

    service = Plain()
    with caplog.at_level(logging.WARNING, "meshkit.config"):
        async with Runtime(service, registry="static://users=127.0.0.1:1"):
            assert service.limits.max_items == 10
    assert len([each for each in caplog.records if each.name == "meshkit.config"]) == 1


async def test_several_have_names_of_their_own() -> None:
    class Two(MeshService):
        name = "two"
        limits = live_config(Limits, "two/limits")
        shared = live_config(Limits, "everybody")

    service = Two()
    async with open_registry("local://") as registry:
        await registry.kv.put("config/two/limits/max_items", b"1")
        await registry.kv.put("config/everybody/max_items", b"2")
        async with Runtime(service, registry="local://", drain_delay=0):
            assert (service.limits.max_items, service.shared.max_items) == (1, 2)


def test_what_shares_keys_is_refused_where_it_is_declared() -> None:
    for name in (None, "orders", "orders/limits", "orders/limits/more"):
        attributes = {
            "name": "orders",
            "limits": live_config(Limits, "orders/limits" if name else None),
            "other": live_config(Limits, name),
        }
        with pytest.raises(
            ConfigError, match=r"Odd: limits and other share the keys config/orders"
        ):
            type("Odd", (MeshService,), attributes)


def test_a_subclass_may_replace_it() -> None:
    class More(Limits):
        more: int = 1

    class Child(Orders):
        limits = live_config(More)

    assert [setting.model for setting in live_settings(Child)] == [More]
    assert [setting.model for setting in live_settings(Orders)] == [Limits]


def test_misuse_is_named() -> None:
    with pytest.raises(ConfigError, match="subclass of pydantic's BaseModel, not 7"):
        live_config(7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="invalid key 'config/a b'"):
        live_config(Limits, "a b")
    with pytest.raises(ConfigError, match="Orders is not running, so its limits are not known"):
        _ = Orders().limits
    assert Orders.limits.model is Limits
