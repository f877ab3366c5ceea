"""What a configuration does when values are bad, or the registry is away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from pydantic import BaseModel, model_validator

from meshkit import ConfigError, LiveConfig
from meshkit.config import live
from meshkit.registry import KeyValue, Registry
from tests.config.following import Away, Limits, Said, settle_down, until
from tests.support.waiting import aeventually


async def test_a_bad_value_is_refused_once_and_the_old_one_stays(
    registry: Registry, kv: KeyValue, said: Said
) -> None:
    await kv.put("config/orders/max_items", b"20")
    await kv.put("config/orders/token", b"\xff")
    async with LiveConfig(Limits, registry, "orders") as config:
        await kv.put("config/orders/max_items", b"many")
        await kv.put("config/orders/title", b"new")  # the others are not held up
        await until(config, title="new")
        assert config.value.max_items == 20
        await kv.put("config/orders/max_items", b"0")
        await kv.put("config/orders/title", b"newer")
        await until(config, title="newer")
        assert config.value.max_items == 20
        await kv.put("config/orders/max_items", b"30")
        await until(config, max_items=30)
        await kv.put("config/orders/max_items", b"0")
        await settle_down()
        assert config.value.max_items == 30
    refused = [line for line in said.lines if "refused" in line]
    stays = "what was before stays"
    integer = "Input should be a valid integer, unable to parse string as an integer"
    small = "Input should be greater than or equal to 1"
    assert refused == [
        "config/orders/token is refused: it is not UTF-8 text; the setting or default applies",
        f"config/orders/max_items is refused: {integer}; {stays}",
        f"config/orders/max_items is refused: {small}; {stays}",
        f"config/orders/max_items is refused: {small}; {stays}",
    ]


async def test_unknown_keys_are_named_once_with_what_may_be_meant(
    registry: Registry, kv: KeyValue, said: Said
) -> None:
    await kv.put("config/orders/max_itmes", b"20")
    await kv.put("config/orders/retry/tims", b"20")
    async with LiveConfig(Limits, registry, "orders") as config:
        await kv.put("config/orders/title", b"new")
        await until(config, title="new")
        await kv.put("config/orders/zzz", b"new")
        await settle_down()
    assert [line for line in said.lines if "is no field" in line] == [
        "config/orders/max_itmes is no field of Limits and is ignored; did you mean max_items?",
        "config/orders/retry/tims is no field of Limits and is ignored; did you mean retry/times?",
        "config/orders/zzz is no field of Limits and is ignored",
    ]


async def test_the_last_values_stay_while_the_registry_is_away(
    registry: Registry, kv: KeyValue, away: Away, said: Said
) -> None:
    await kv.put("config/orders/max_items", b"20")
    async with LiveConfig(Limits, registry, "orders") as config:
        with away:
            await aeventually(lambda: asyncio.sleep(0, config.error is not None))
            await asyncio.sleep(1)  # several attempts
            assert config.value.max_items == 20
        await aeventually(lambda: asyncio.sleep(0, config.error is None))
        await kv.put("config/orders/max_items", b"30")
        await until(config, max_items=30)
    assert [line for line in said.lines if "follow" in line] == [
        said.lines[0],
        "config/orders/: following local:// again",
    ]
    assert said.lines[0].startswith("config/orders/: the registry can't be followed: state folder")
    assert said.lines[0].endswith("; the last values stay")


async def test_a_start_without_the_registry_has_the_settings_and_catches_up(
    registry: Registry, kv: KeyValue, away: Away, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "FIRST_LIST", 0.5)
    await kv.put("config/orders/max_items", b"20")
    heard: list[int] = []
    with away:
        config = LiveConfig(Limits, registry, "orders")
        config.on_change(lambda old, new: heard.append(new.max_items))
        await config.start()
        config.announce()
        assert config.value == Limits()
        assert said.lines[0].endswith("; the settings apply")
    await until(config, max_items=20)
    await aeventually(lambda: asyncio.sleep(0, heard == [20]))
    await config.aclose()


async def test_a_registry_that_hangs_does_not_hold_up_the_start(
    registry: Registry, kv: KeyValue, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meshkit.registry.local.lock import LockFile

    monkeypatch.setattr(live, "FIRST_LIST", 0.5)
    await kv.put("config/orders/max_items", b"20")
    path = tmp_path / "state" / "registry" / "default" / "_kv" / ":lock"
    lock = LockFile.acquire(path, announce=False)
    assert lock
    started = time.monotonic()
    async with LiveConfig(Limits, registry, "orders") as config:
        assert time.monotonic() - started < 5
        assert config.value == Limits()
        lock.release()
        await until(config, max_items=20)
    assert said.lines[0] == (
        "config/orders/: no answer from local:// within 0 s; the settings apply until there is one"
    )


async def test_an_engine_without_values_is_one_warning(said: Said) -> None:
    async with LiveConfig(Limits, "static://users=127.0.0.1:1", "orders") as config:
        assert config.value == Limits()
    (line,) = said.lines
    assert line == (
        "static://users=127.0.0.1:1 has no key-value store; "
        "Limits (config/orders/) has its values from the settings alone"
    )


class Order(BaseModel):
    min_items: int = 1
    max_items: int = 50
    enabled: bool = False

    @model_validator(mode="after")
    def in_order(self) -> Order:
        if self.min_items > self.max_items:
            raise ValueError("min_items must not be above max_items")
        return self


async def test_what_does_not_go_together_holds_up_nothing_else(
    registry: Registry, kv: KeyValue, said: Said
) -> None:
    async with LiveConfig(Order, registry, "orders") as config:

        async def put(name: str, value: bytes, expected: Order) -> None:
            await kv.put(f"config/orders/{name}", value)
            await aeventually(lambda: asyncio.sleep(0, config.value == expected))

        await kv.put("config/orders/min_items", b"100")
        await put("enabled", b"yes", Order(enabled=True))
        await put("max_items", b"60", Order(enabled=True, max_items=60))
        await put("max_items", b"200", Order(enabled=True, min_items=100, max_items=200))
        await kv.delete("config/orders/max_items")
        await put("enabled", b"no", Order(min_items=100, max_items=200))
    clash = "min_items must not be above max_items"
    assert [line for line in said.lines if clash in line] == [
        f"config/orders/min_items is refused: {clash}; the setting or default applies",
        f"config/orders/max_items was removed, but is needed: {clash}; what was before stays",
    ]


class Needy(BaseModel):
    url: str


class Unlucky(BaseModel):
    @model_validator(mode="after")
    def never(self) -> Unlucky:
        raise ValueError("never good")


async def test_a_model_that_can_not_be_made_is_an_error_at_the_start(
    registry: Registry,
    kv: KeyValue,
    away: Away,
    said: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = asyncio.all_tasks()
    with pytest.raises(ConfigError) as caught:
        async with LiveConfig(Needy, registry, "orders"):
            pass
    assert str(caught.value) == (
        "Needy (config/orders/) can't be made: config/orders/url: Field required; "
        "set it by: meshkit config put orders/url VALUE --registry local://"
    )
    with pytest.raises(ConfigError, match=r"config/orders/: never good$"):
        async with LiveConfig(Unlucky, registry, "orders"):
            pass
    await kv.put("config/orders/url", b"http://a")
    async with LiveConfig(Needy, registry, "orders") as config:
        assert config.value.url == "http://a"
        await kv.delete("config/orders/url")
        await settle_down()
        assert config.value.url == "http://a"
    assert said.lines == [
        "config/orders/url was removed, but is needed: Field required; what was before stays"
    ]
    for url in ("static://users=127.0.0.1:1", "memory://"):  # which no command can mend
        with pytest.raises(ConfigError, match=r"config/orders/url: Field required$"):
            await LiveConfig(Needy, url, "orders").__aenter__()
    monkeypatch.setattr(live, "FIRST_LIST", 0.3)
    with away, pytest.raises(ConfigError, match=r"Field required \(the registry can't be followed"):
        await LiveConfig(Needy, "local://", "orders").__aenter__()
    assert asyncio.all_tasks() == tasks
