"""``local://`` when its files are taken away, and registries beside each other in one process."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import shutil
import time
from pathlib import Path

import pytest

from meshkit.errors import LeaseLost, MeshError, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import Lease, Registry, open_registry
from meshkit.registry.local import notifier
from meshkit.registry.local.folder import Folder
from meshkit.testing.watched import Watched

USER = Instance(id="users-1", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


@pytest.fixture
async def registry(tmp_path: Path) -> Registry:
    return open_registry(f"local://?dir={tmp_path}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "default" / "users"


async def ids(registry: Registry, service: str = "users") -> list[str]:
    return [each.id for each in (await registry.instances(service)).instances]


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


@pytest.mark.parametrize("gone", [".", "default", "default/users"])
async def test_wiped_folder_is_healed(registry: Registry, tmp_path: Path, gone: str) -> None:
    lease = await registry.register(USER)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == (USER,)
        shutil.rmtree(tmp_path / gone)
        assert (await watched.next()).instances == ()
        with pytest.raises(LeaseLost, match="register anew"):
            await registry.renew(lease)
        await registry.register(USER)
        assert (await watched.next()).instances == (USER,)
        await registry.renew(lease)
    await registry.aclose()


async def test_folder_moved_away_is_noticed(registry: Registry, tmp_path: Path) -> None:
    lease = await registry.register(USER)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == (USER,)
        (tmp_path / "default").rename(tmp_path / "old")
        assert (await watched.next()).instances == ()
        with pytest.raises(LeaseLost):
            await registry.renew(lease)
        await registry.register(USER)
        assert (await watched.next()).instances == (USER,)
    await registry.aclose()


async def test_replaced_or_unlocked_file_is_a_lost_lease(registry: Registry, folder: Path) -> None:
    lease = await registry.register(USER)
    copy = folder / "copy"
    shutil.copy(folder / "users-1.json", copy)
    copy.rename(folder / "users-1.json")
    with pytest.raises(LeaseLost):
        await registry.renew(lease)
    await registry.register(USER)
    (folder / "users-1.lock").unlink()
    assert await ids(registry) == []
    with pytest.raises(LeaseLost):
        await registry.renew(lease)
    await registry.register(USER)
    await registry.renew(lease)
    assert await ids(registry) == ["users-1"]
    await registry.aclose()


async def test_failed_read_is_no_empty_list(registry: Registry, folder: Path) -> None:
    await registry.register(USER)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == (USER,)
        shutil.rmtree(folder)
        folder.write_text("no folder")
        with pytest.raises(RegistryUnavailable) as caught:
            await watched.next()
        assert "\n" not in str(caught.value)
    for operation in (registry.register(USER), registry.instances("users")):
        with pytest.raises(RegistryUnavailable):
            await operation
    folder.unlink()
    await registry.register(USER)
    assert await ids(registry) == ["users-1"]
    await registry.aclose()


async def test_too_many_open_files_is_no_empty_list(registry: Registry, folder: Path) -> None:
    await registry.register(USER)
    spare = folder / "spare"
    spare.touch()
    async with Watched(registry.watch("users")) as watched:
        await watched.next()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(RegistryUnavailable, match=r"can't list users: .*open files"):
                await registry.instances("users")
            spare.unlink()  # so that the watch has to look
            with pytest.raises(RegistryUnavailable):
                await watched.next()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await ids(registry) == ["users-1"]
    await registry.aclose()


async def test_failed_write_keeps_what_was_registered(registry: Registry, folder: Path) -> None:
    lease = await registry.register(USER)
    (folder / "users-1.tmp").mkdir()
    with pytest.raises(RegistryUnavailable, match=r"can't register users-1: .*users-1\.tmp"):
        await registry.register(USER)
    await registry.renew(lease)
    (folder / "users-2.tmp").mkdir()
    with pytest.raises(RegistryUnavailable):
        await registry.register(Instance(id="users-2", service="users"))
    (folder / "users-2.tmp").rmdir()
    assert await ids(registry) == ["users-1"]
    assert "users-2.lock" not in names(folder)


async def test_instance_can_move_to_another_service(registry: Registry) -> None:
    await registry.register(USER)
    await registry.register(Instance(id="users-1", service="orders"))
    assert await ids(registry, "users") == []
    assert await ids(registry, "orders") == ["users-1"]
    await registry.aclose()


async def test_registries_of_one_process_are_independent(tmp_path: Path) -> None:
    """The heartbeat thread registers with one, the event loop watches with another."""
    url = f"local://?dir={tmp_path}"
    other = Instance(id="users-2", service="users")
    up, down = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def heartbeat() -> None:
        async with open_registry(url) as registry:
            await registry.register(USER)
            loop.call_soon_threadsafe(up.set)
            await asyncio.wait_for(asyncio.to_thread(asyncio.run, _until_set(down)), 15)
            await registry.renew(Lease(instance_id="users-1", ttl=6.0))

    async def _until_set(event: asyncio.Event) -> None:
        while not event.is_set():
            await asyncio.sleep(0.01)

    thread = asyncio.ensure_future(asyncio.to_thread(asyncio.run, heartbeat()))
    async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
        await asyncio.wait_for(up.wait(), 15)
        await watched.until(lambda snapshot: snapshot.instances == (USER,))
        async with open_registry(url) as third:
            await third.register(other)
            await watched.until(lambda snapshot: snapshot.instances == (USER, other))
            with pytest.raises(LeaseLost):
                await third.renew(Lease(instance_id="users-1", ttl=6.0))
        await watched.until(lambda snapshot: snapshot.instances == (USER,))
        down.set()
        await thread
        await watched.until(lambda snapshot: snapshot.instances == ())


async def test_watches_that_ended_are_not_watched_on(registry: Registry) -> None:
    before = kernel_watches()
    for n in range(5):
        async with Watched(registry.watch(f"users-{n}")) as watched:
            await watched.next()
            assert kernel_watches() == before + 1
    assert kernel_watches() == before
    await registry.aclose()


def kernel_watches() -> int:
    """Count what this process's inotify descriptors watch."""
    count = 0
    for each in Path("/proc/self/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists this folder
            count += each.read_text().count("inotify wd:")
    return count


async def test_services_are_watched_without_the_poll(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "POLL", 600.0)
    async with Watched(registry.watch_services()) as watched:
        assert await watched.next() == ()
        for count in (1, 2):
            await watched.nothing(seconds=0.2)
            await registry.register(Instance(id=f"users-{count}", service="users"))
            assert [each.instances for each in await watched.next()] == [count]
    await registry.aclose()


async def test_an_idle_watch_reads_no_instance(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poll looks at the folder alone; a hundred watches must not cost a hundred reads."""
    monkeypatch.setattr(notifier, "POLL", 0.01)
    await registry.register(USER)
    reads = 0
    look = Folder.look

    def counted(self: Folder) -> tuple[tuple[Instance, ...], dict[Path, int]]:
        nonlocal reads
        reads += 1
        return look(self)

    monkeypatch.setattr(Folder, "look", counted)
    async with Watched(registry.watch("users")) as watched:
        await watched.next()
        await watched.nothing(seconds=0.5)
        idle = reads
        await watched.nothing(seconds=0.5)
        assert reads == idle
        (folder / "users-1.json").replace(folder / "users-1.json.bak")
        assert (await watched.next()).instances == ()
        assert reads > idle
    await registry.aclose()


async def test_poll_is_quicker_when_a_folder_can_not_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the system's watches are used up."""
    monkeypatch.setattr(notifier, "POLL", 600.0)
    watching = notifier.Notifier(inotify=True)
    with watching.changes() as changes:
        changes.follow(tmp_path, tmp_path / "missing")
        async with asyncio.timeout(10):
            await changes.wait()
            await changes.wait()
    watching.close()


async def test_closing_ends_the_watches(registry: Registry) -> None:
    async with (
        Watched(registry.watch("users")) as users,
        Watched(registry.watch_services()) as all_,
    ):
        await users.next()
        await all_.next()
        await users.nothing(seconds=0.01)
        await registry.aclose()
        for watched in (users, all_):
            with pytest.raises(StopAsyncIteration):
                await watched.next()


async def test_lock_file_swept_while_it_is_being_locked(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one moment in which a sweeper and a new owner of the same id can meet."""
    await registry.instances("users")
    flock, path, swept = fcntl.flock, folder / "users-1.lock", list[Path]()

    def sweep_first(fd: int, operation: int) -> None:
        if not swept:
            swept.append(path)
            path.unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    await registry.register(USER)
    assert swept
    assert await ids(registry) == ["users-1"]
    await registry.aclose()


async def test_closed_registry_says_so(registry: Registry) -> None:
    await registry.aclose()
    for operation in (registry.register(USER), registry.instances("users"), registry.services()):
        with pytest.raises(MeshError, match="is closed"):
            await operation


async def test_idle_watches_cost_nothing(registry: Registry, folder: Path) -> None:
    """Also beside leftovers that can't be removed, which must not wake their own finder."""
    for n in range(2, 6):
        await registry.register(Instance(id=f"users-{n}", service="users"))
    (folder / "stuck.json").mkdir()
    (folder / "stuck.lock").touch()
    watches = [Watched(registry.watch("users")) for _ in range(5)]
    for watched in watches:
        await watched.next()
    await registry.register(USER)
    for watched in watches:
        await watched.next()
    before, start = os.times(), time.monotonic()
    await asyncio.gather(*(watched.nothing(seconds=3) for watched in watches))
    after = os.times()
    used = after.user + after.system - before.user - before.system
    assert used / (time.monotonic() - start) < 0.15  # measured: under 0.01
    for watched in watches:
        await watched.aclose()
    await registry.aclose()
