"""The key-value contract on ``local://``, and what lies in its folder."""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path

import pytest

from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.registry import open_registry
from meshkit.registry.kv import KEY_LENGTH, VALUE_LIMIT
from meshkit.registry.local import LocalRegistry, keyvalue, notifier
from meshkit.registry.local.lock import LockFile
from meshkit.testing.keyvalue_contract import KeyValueContract, Opener
from meshkit.testing.watched import Watched


class TestLocalKeyValue(KeyValueContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: open_registry(f"local://?dir={tmp_path}")


class TestLocalKeyValueWithoutInotify(TestLocalKeyValue):
    calm = 1.2  # more than two polls

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return lambda: LocalRegistry("local://", tmp_path, inotify=False)


@pytest.fixture
async def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry("local://", tmp_path, tmp_path / "default")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "default" / "_kv"


async def test_values_can_be_read_with_cat(registry: LocalRegistry, folder: Path) -> None:
    await registry.kv.put("config/orders/limit", b"20\n")
    head, _, value = (folder / "config:orders:limit").read_bytes().partition(b"\n")
    assert json.loads(head)["key"] == "config/orders/limit"
    assert value == b"20\n"


async def test_values_are_their_owners_alone(registry: LocalRegistry, folder: Path) -> None:
    await registry.kv.put("secret", b"1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    folder.chmod(0o777)
    with pytest.raises(RegistryUnavailable, match="others may write to it"):
        await registry.kv.get("secret")


async def test_values_are_no_service(registry: LocalRegistry) -> None:
    async with registry, Watched(registry.watch_services()) as watched:
        assert await watched.next() == ()
        await registry.kv.put("a", b"1")
        await watched.nothing(seconds=0.3)
        assert await registry.services() == ()
        await registry.deregister("a")


async def test_foreign_files_are_skipped_and_named_once(
    registry: LocalRegistry, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put = await registry.kv.put("config/a", b"1")
    (tmp_path / "elsewhere").write_text('{"key": "link", "revision": 7}\n1')
    (folder / "notes.txt").write_text("mine")
    (folder / "lone").write_bytes((folder / "config:a").read_bytes())
    (folder / "negative").write_text('{"key": "negative", "revision": -1}\n1')
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "what is this").touch()
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    for _ in range(2):
        assert await registry.kv.list() == (put,)
    names = "folder, link, lone, negative, notes.txt, pipe, what is this"
    assert caplog.messages == [f"local://: {folder} holds what is no value, skipped: {names}"]
    for name in ("notes.txt", "lone", "negative", "link", "folder", "pipe"):
        assert await registry.kv.get(name) is None
    assert await registry.kv.put("link", b"2")
    assert (tmp_path / "elsewhere").read_text().endswith("\n1")
    with pytest.raises(RegistryUnavailable, match=r"can't write folder: .*_kv.*: Is a directory"):
        await registry.kv.put("folder", b"2")


async def test_a_removed_folder_is_an_empty_one(registry: LocalRegistry, folder: Path) -> None:
    async with registry, Watched(registry.kv.watch("a")) as watched:
        put = await registry.kv.put("a", b"1")
        assert put
        await watched.until(lambda entries: entries == (put,))
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()
        await watched.until(lambda entries: entries == ())
        again = await registry.kv.put("a", b"1")
        assert again
        assert again.revision != put.revision
        await watched.until(lambda entries: entries == (again,))


@pytest.mark.parametrize("counter", [b"", b"\0" * 21, b"garbage", None])
async def test_a_lost_count_goes_on_from_what_is_there(
    registry: LocalRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch, counter: bytes | None
) -> None:
    before = await registry.kv.put("a", b"1")
    assert before
    if counter is not None:
        (folder / ":revision").write_bytes(counter)
    monkeypatch.setattr("time.time_ns", lambda: 0)  # a clock that was set back
    for _ in range(3):
        after = await registry.kv.put("a", b"1")
        assert after
        assert after.revision > before.revision
        if counter is None:
            await registry.kv.delete("a")
        before = after


async def test_a_full_disk_is_an_error_and_changes_nothing(registry: LocalRegistry) -> None:
    put = await registry.kv.put("a", b"1")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(RegistryUnavailable, match=r"local:// can't write a: .*File too large"):
            await registry.kv.put("a", bytes(VALUE_LIMIT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert await registry.kv.list() == (put,)
    assert await registry.kv.put("a", b"2")


async def test_a_lock_that_is_never_released_is_an_error(
    registry: LocalRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.kv.put("a", b"1")
    monkeypatch.setattr(keyvalue, "LOCK_LIMIT", 0.1)
    lock = LockFile.acquire(folder / ":lock", announce=False)
    assert lock
    for attempt in (registry.kv.put("a", b"2"), registry.kv.list(), registry.kv.delete("a")):
        with pytest.raises(RegistryUnavailable, match="_kv has been locked"):
            await attempt
    assert await registry.kv.get("a")
    lock.release()
    assert await registry.kv.delete("a")


async def test_long_keys_are_told_apart_by_a_digest(registry: LocalRegistry, folder: Path) -> None:
    keys = ["a/" * 100 + "b" * n for n in (55, 56, KEY_LENGTH - 200)]
    for key in keys:
        assert await registry.kv.put(key, key.encode())
    assert [entry.key for entry in await registry.kv.list("a/" * 90)] == sorted(keys)
    assert [entry.key for entry in await registry.kv.list("a/" * 100 + "b" * 57)] == [keys[2]]
    assert sum("~" in each.name for each in folder.iterdir()) == 2


@pytest.mark.parametrize("key", ["a.tmp", ".tmp", "a/b", "w" * 300])
async def test_news_of_every_key_come_at_once(
    registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(notifier, "POLL", 600.0)
    async with registry, Watched(registry.kv.watch()) as watched:
        await watched.until(lambda entries: entries == ())
        for value in (b"1", b"2"):
            put = await registry.kv.put(key, value)
            await watched.until(lambda entries: entries == (put,))  # noqa: B023
        await registry.kv.delete(key)
        await watched.until(lambda entries: entries == ())


async def test_closed_is_an_error(registry: LocalRegistry) -> None:
    await registry.aclose()
    for attempt in (registry.kv.get("a"), registry.kv.list(), registry.kv.put("a", b"1")):
        with pytest.raises(RegistryError, match="local:// is closed"):
            await attempt
