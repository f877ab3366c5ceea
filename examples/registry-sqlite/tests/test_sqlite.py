"""What the contract can't know: expiry, the file's fate, and mistakes."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from meshkit.errors import LeaseLost, RegistryError, RegistryUnavailable, RegistryUrlError
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.testing.watched import Watched

import meshkit_sqlite.registry

USERS = Instance(id="users-1", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


@pytest.fixture
async def registry(file: Path) -> AsyncIterator[Registry]:
    async with open_registry(f"sqlite://{file}") as registry:
        yield registry


async def test_who_does_not_renew_is_gone(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meshkit_sqlite.registry, "TTL", 1.0)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == ()
        lease = await registry.register(USERS)
        assert (await watched.next()).instances == (USERS,)
        for _ in range(4):
            await asyncio.sleep(lease.interval)
            await registry.renew(lease)
        await watched.nothing(seconds=0.01)
        assert (await watched.next()).instances == ()
        assert await registry.services() == ()
        with pytest.raises(LeaseLost):
            await registry.renew(lease)


async def test_a_removed_file_is_a_registry_that_forgot(registry: Registry, file: Path) -> None:
    async with Watched(registry.watch("users")) as watched:
        lease = await registry.register(USERS)
        await watched.until(lambda snapshot: snapshot.instances == (USERS,))
        for left in file.parent.glob("registry.db*"):
            left.unlink()
        await watched.until(lambda snapshot: snapshot.instances == ())
        with pytest.raises(LeaseLost):
            await registry.renew(lease)
        await registry.register(USERS)
        await watched.until(lambda snapshot: snapshot.instances == (USERS,))


async def test_a_locked_file_is_unavailable_and_nothing_is_blocked(
    registry: Registry, file: Path
) -> None:
    await registry.register(USERS)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        writing = asyncio.create_task(registry.register(USERS))
        turns = 0
        while not writing.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 10
        with pytest.raises(RegistryUnavailable, match=r"can't be used: database is locked"):
            await writing
    finally:
        other.close()
    await registry.register(USERS)


@pytest.fixture(params=["a folder", "a text"])
def other_file(request: pytest.FixtureRequest, file: Path) -> Path:
    if request.param == "a folder":
        file.mkdir()
    else:
        file.write_text("no database " * 100)
    return file


@pytest.mark.usefixtures("other_file")
async def test_what_is_no_database(registry: Registry) -> None:
    for _ in range(2):
        with pytest.raises(RegistryUnavailable, match=r"can't be used: "):
            await registry.instances("users")


async def test_a_row_that_is_no_instance(registry: Registry, file: Path) -> None:
    await registry.register(USERS)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE instances SET body = '{}'")
    connection.close()
    with pytest.raises(RegistryError, match="holds a row that is no instance"):
        await registry.instances("users")


async def test_its_thread_ends_with_it(file: Path) -> None:
    async with open_registry(f"sqlite://{file}") as registry:
        await registry.register(USERS)
    for thread in threading.enumerate():
        if thread.name.startswith("meshkit-sqlite"):
            thread.join(10)
            assert not thread.is_alive()
    with pytest.raises(RegistryError, match="is closed"):
        await registry.register(USERS)


@pytest.mark.parametrize("rest", ["", "/", "file.db", "me@/file.db", "/file.db?ttl=5"])
def test_bad_urls(rest: str) -> None:
    with pytest.raises(RegistryUrlError, match=r"absolute path|unknown parameter 'ttl'"):
        open_registry(f"sqlite://{rest}")
