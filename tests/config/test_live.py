"""A model that follows the registry: swapped as a whole, told to listeners, kept."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit import ConfigError, LiveConfig
from meshkit.config import live
from meshkit.registry import KeyValue, Registry, open_registry
from tests.support.waiting import aeventually


class Retry(BaseModel, frozen=True):
    times: int = 3
    pause: float = 0.1


class Limits(BaseModel, frozen=True):
    max_items: int = Field(10, ge=1)
    title: str = "shop"
    token: SecretStr = SecretStr("")
    retry: Retry = Retry()


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry("local://") as registry:
        yield registry


@pytest.fixture
def kv(registry: Registry) -> KeyValue:
    return registry.kv


class Said:
    """The lines that the configuration has logged so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "meshkit.config")
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        records = self._caplog.records
        return [each.getMessage() for each in records if each.name == "meshkit.config"]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return Said(caplog)


async def until(config: LiveConfig[Limits], **values: object) -> None:
    async def holds() -> bool:
        return all(getattr(config.value, name) == value for name, value in values.items())

    await aeventually(holds)


async def settle_down() -> None:
    """Time in which what must not happen would."""
    await asyncio.sleep(0.3)


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


class Away:
    """Makes the registry fail for as long as it is entered: its folder looks tampered with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o777)

    def __exit__(self, *_: object) -> None:
        self._folder.chmod(0o700)


@pytest.fixture
def away(registry: Registry, tmp_path: Path) -> Away:
    return Away(tmp_path / "state" / "registry" / "default" / "_kv")


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


class Needy(BaseModel):
    url: str


class Unlucky(BaseModel):
    @model_validator(mode="after")
    def never(self) -> Unlucky:
        raise ValueError("never good")


async def test_a_model_that_can_not_be_made_is_an_error_at_the_start(
    registry: Registry, kv: KeyValue, away: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = asyncio.all_tasks()
    with pytest.raises(ConfigError) as caught:
        async with LiveConfig(Needy, registry, "orders"):
            pass
    assert str(caught.value) == (
        "Needy (config/orders/) can't be made: config/orders/url: Field required"
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
    monkeypatch.setattr(live, "FIRST_LIST", 0.3)
    with away, pytest.raises(ConfigError, match=r"Field required \(the registry can't be followed"):
        await LiveConfig(Needy, "local://", "orders").__aenter__()
    assert asyncio.all_tasks() == tasks


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
