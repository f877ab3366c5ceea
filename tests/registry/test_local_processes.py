"""``local://`` among real processes that live, fork and are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from meshkit.errors import RegistryError
from meshkit.model import Endpoint, Instance, Snapshot, Status
from meshkit.registry.local import LocalRegistry, heartbeats, notifier
from meshkit.testing.watched import Watched
from tests.registry.processes import Nursery


@pytest.fixture
async def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry("local://", tmp_path, tmp_path / "default")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "default" / "users"


def ids(snapshot: Snapshot) -> list[str]:
    return [each.id for each in snapshot.instances]


def shows(*expected: str) -> Callable[[Snapshot], bool]:
    return lambda snapshot: ids(snapshot) == sorted(expected)


async def test_fifty_killed_leave_nothing(
    registry: LocalRegistry, nursery: Nursery, folder: Path
) -> None:
    for n in range(50):
        nursery.spawn(f"w{n}")
        nursery.tell(f"w{n}", "register", "users", f"i{n}")
        if n % 10:  # the others are killed while there are many
            nursery.kill(f"w{n}")
    assert ids(await registry.instances("users")) == [f"i{n}" for n in range(0, 50, 10)]
    for n in range(0, 50, 10):
        nursery.kill(f"w{n}")
    assert ids(await registry.instances("users")) == []
    assert list(folder.iterdir()) == []
    assert await registry.services() == ()


async def test_eight_at_once_corrupt_nothing(
    registry: LocalRegistry, nursery: Nursery, folder: Path, tmp_path: Path
) -> None:
    nursery.spawn("steady")
    nursery.tell("steady", "rewrite", "users", "steady")
    truths = [tmp_path / f"truth{n}" for n in range(8)]
    for n, truth in enumerate(truths):
        nursery.spawn(f"w{n}")
        nursery.tell(f"w{n}", "churn", "users", f"p{n}", 2, truth)
    looks = 0
    async with asyncio.timeout(60), Watched(registry.watch("users")) as watched:
        while not all(truth.exists() for truth in truths):
            assert "steady" in ids(await watched.next())
            looks += 1
        nursery.kill("steady")
        expected: dict[str, int] = {}
        for truth in truths:
            expected |= json.loads(truth.read_text())
        last = await watched.until(shows(*expected))
    assert {each.id: each.weight for each in last.instances} == expected
    assert {each.name for each in folder.iterdir()} == {
        f"{each}{suffix}" for each in expected for suffix in (".json", ".lock")
    }
    assert looks > 1


async def test_killed_while_writing_leaves_nothing_unreadable(
    registry: LocalRegistry, nursery: Nursery, folder: Path
) -> None:
    chance = random.Random(7)
    for n in range(30):
        nursery.spawn(f"w{n}")
        nursery.tell(f"w{n}", "rewrite", "users", f"i{n}")
        await asyncio.sleep(chance.uniform(0, 0.01))
        nursery.kill(f"w{n}")
        assert json.loads((folder / f"i{n}.json").read_text())["id"] == f"i{n}"
    assert ids(await registry.instances("users")) == []
    assert list(folder.iterdir()) == []


async def test_what_a_process_killed_while_writing_left_is_swept(
    registry: LocalRegistry, nursery: Nursery, folder: Path
) -> None:
    nursery.spawn("writer")
    nursery.tell("writer", "register", "users", "a")
    nursery.tell("writer", "stick", "users", "a")
    nursery.kill("writer")
    assert (folder / "a.tmp").exists()
    assert json.loads((folder / "a.json").read_text())["weight"] == 1
    assert ids(await registry.instances("users")) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("inotify", [True, False], ids=["inotify", "poll"])
async def test_watcher_sees_a_death(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch, *, inotify: bool
) -> None:
    if inotify:  # all news must come from it
        monkeypatch.setattr(notifier, "POLL", 600.0)
    registry = LocalRegistry("local://", tmp_path, tmp_path / "default", inotify=inotify)
    async with registry, Watched(registry.watch("users")) as watched:
        await watched.until(shows())
        for name in ("a", "b"):
            nursery.spawn(name)
            nursery.tell(name, "register", "users", name)
        await watched.until(shows("a", "b"))
        await watched.nothing(seconds=0.3)
        killed = time.monotonic()
        nursery.kill("a")
        await watched.until(shows("b"))
        assert time.monotonic() - killed < 5  # 1 on a machine of its own


async def test_forked_child_does_not_keep_its_parent_registered(
    registry: LocalRegistry, nursery: Nursery
) -> None:
    nursery.spawn("parent")
    nursery.tell("parent", "register", "users", "a")
    child = int(nursery.tell("parent", "fork"))
    async with registry, Watched(registry.watch("users")) as watched:
        await watched.until(shows("a"))
        nursery.kill("parent")
        await watched.until(shows())
    os.kill(child, 0)  # it lives


async def test_forked_child_can_not_deregister_its_parent(
    registry: LocalRegistry, nursery: Nursery
) -> None:
    nursery.spawn("parent")
    nursery.tell("parent", "register", "users", "a")
    assert nursery.tell("parent", "fork_and_close", "a") == "0"
    assert ids(await registry.instances("users")) == ["a"]
    assert nursery.tell("parent", "renew", "a") == "ok"


async def test_what_another_process_registered_is_its_own(
    registry: LocalRegistry, nursery: Nursery
) -> None:
    pid = nursery.spawn("owner")
    nursery.tell("owner", "register", "users", "a", 5)
    again = Instance(id="a", service="users", endpoints={"http": Endpoint("127.0.0.1", 1)})
    with pytest.raises(RegistryError, match=f"a is already registered by process {pid}"):
        await registry.register(again)
    with pytest.raises(RegistryError, match=f"a belongs to process {pid}"):
        await registry.deregister("a")
    assert [each.weight for each in (await registry.instances("users")).instances] == [5]
    assert nursery.tell("owner", "renew", "a") == "ok"
    nursery.kill("owner")
    await registry.deregister("a")
    await registry.register(again)
    assert (await registry.instances("users")).instances == (again,)
    await registry.aclose()


async def test_a_stopped_process_is_shown_as_down_and_up_again(
    nursery: Nursery, registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its lock all the while; its renewals tell."""
    monkeypatch.setattr(heartbeats, "TTL", 3.0)
    nursery.spawn("a")
    nursery.tell("a", "register", "users", "users-a")
    async with registry, Watched(registry.watch("users")) as watched:
        assert [each.status for each in (await watched.next()).instances] == [Status.UP]
        for _ in range(5):  # renewed, it stays, and nobody is told of that
            await watched.nothing(seconds=1)
            nursery.tell("a", "renew", "users-a")
        assert [each.status for each in (await watched.next()).instances] == [Status.DOWN]
        assert (await registry.instances("users")).up == ()
        nursery.tell("a", "renew", "users-a")
        assert [each.status for each in (await watched.next()).instances] == [Status.UP]
