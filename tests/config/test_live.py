"""A model that follows the registry: swapped as a whole, told to listeners, kept."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit import ConfigError, LiveConfig
from meshkit.registry import KeyValue, Registry
from tests.config.following import Limits, Retry, Said, settle_down, until
from tests.support.waiting import aeventually


async def test_values_come_from_the_registry_and_follow_it(
    registry: Registry, kv: KeyValue, said: Said
) -> None:
    await kv.put("config/orders/max_items", b"20")
    await kv.put("config/other/max_items", b"99")
    async with LiveConfig(Limits, registry, "orders") as config:
        assert config.value == Limits(max_items=20)
        await kv.put("config/orders/retry/times", b"5")
        await kv.put("config/orders/token", b"hush")
        await until(config, retry=Retry(times=5), token=SecretStr("hush"))
        await kv.delete("config/orders/max_items")
        await until(config, max_items=10)
        last = config.value
    await kv.put("config/orders/max_items", b"30")
    await settle_down()
    assert config.value is last
    changed = [line.partition(": changed ")[2] for line in said.lines]
    assert sorted(set(", ".join(changed).split(", "))) == ["max_items", "retry", "token"]
    assert "hush" not in str(said.lines)


async def test_a_registry_by_its_url_is_closed_along(kv: KeyValue) -> None:
    tasks = asyncio.all_tasks()
    await kv.put("config/orders/max_items", b"20")
    async with LiveConfig(Limits, "local://", "orders") as config:
        assert config.value.max_items == 20
    await config.aclose()
    with pytest.raises(Exception, match="is closed"):
        await config._registry.kv.get("a")
    assert asyncio.all_tasks() == tasks
    async with LiveConfig(Limits, None, "orders") as config:  # by the settings
        assert config.value.max_items == 20


async def test_values_are_swapped_never_changed(registry: Registry, kv: KeyValue) -> None:
    async with LiveConfig(Limits, registry, "orders") as config:
        taken = config.value
        await kv.put("config/orders/max_items", b"20")
        await until(config, max_items=20)
        assert taken == Limits()
        await kv.put("config/orders/max_items", b"20")
        now = config.value
        await settle_down()
        assert config.value == now


async def test_listeners_hear_old_and_new_in_order(registry: Registry, kv: KeyValue) -> None:
    heard: list[tuple[str, int, int]] = []
    async with LiveConfig(Limits, registry, "orders") as config:

        @config.on_change
        def plain(old: Limits, new: Limits) -> None:
            heard.append(("plain", old.max_items, new.max_items))

        @config.on_change
        async def slow(old: Limits, new: Limits) -> None:
            await asyncio.sleep(0.05)
            assert config.value.max_items >= new.max_items
            heard.append(("slow", old.max_items, new.max_items))

        for value in (11, 12, 13):
            await kv.put("config/orders/max_items", b"%d" % value)
            await until(config, max_items=value)  # not held up by the slow one

        async def told() -> bool:
            return heard[-1:] == [("slow", heard[-1][1], 13)]

        await aeventually(told)
    for name in ("plain", "slow"):
        steps = [(old, new) for who, old, new in heard if who == name]
        assert steps[0][0] == 10
        assert all(one[1] == other[0] for one, other in itertools.pairwise(steps))
    assert [who for who, _, _ in heard] == ["plain", "slow"] * (len(heard) // 2)


async def test_a_failing_listener_is_one_line_and_the_others_hear(
    registry: Registry, kv: KeyValue, said: Said
) -> None:
    heard = asyncio.Event()
    async with LiveConfig(Limits, registry, "orders") as config:

        @config.on_change
        def broken(old: Limits, new: Limits) -> None:
            raise ValueError("no\nroom")

        @config.on_change
        def works(old: Limits, new: Limits) -> None:
            heard.set()

        for value in (11, 12):
            await kv.put("config/orders/max_items", b"%d" % value)
            await asyncio.wait_for(heard.wait(), 10)
            heard.clear()
    lines = [line for line in said.lines if "failed" in line]
    assert len(lines) == 2
    assert "broken failed: ValueError: no room (" in lines[0]
    assert "test_live.py:" in lines[0]


async def test_settings_are_read_below_the_registry(
    registry: Registry, kv: KeyValue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("SHOP_TITLE=file\nSHOP_MAX_ITEMS=5\n")

    class Shop(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="SHOP_", env_file=tmp_path / ".env")
        max_items: int = 10
        title: str = "default"

    monkeypatch.setenv("SHOP_MAX_ITEMS", "6")
    async with LiveConfig(Shop, registry, "shop") as config:
        assert config.value == Shop.model_construct(max_items=6, title="file")
        await kv.put("config/shop/max_items", b"7")
        await aeventually(lambda: asyncio.sleep(0, config.value.max_items == 7))
        await kv.delete("config/shop/max_items")
        await aeventually(lambda: asyncio.sleep(0, config.value.max_items == 6))


def test_misuse_is_named() -> None:
    with pytest.raises(ConfigError, match=r"subclass of pydantic's BaseModel, not <class 'int'>"):
        LiveConfig(int, "memory://", "orders")  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="invalid key 'config/a b'"):
        LiveConfig(Limits, "memory://", "a b")
    with pytest.raises(ConfigError, match=r"config/orders/: Limits has no values yet: use `async"):
        _ = LiveConfig(Limits, "memory://", "orders").value
