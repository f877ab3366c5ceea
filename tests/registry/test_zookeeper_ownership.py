"""Whose node it is on ``zookeeper://``: processes that end, come back, or share an id."""

import asyncio
import contextlib
import dataclasses
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from meshkit.errors import LeaseLost, RegistryError
from meshkit.model import Endpoint, Instance, Snapshot
from meshkit.registry import Registry, open_registry
from meshkit.testing.watched import Watched
from tests.registry.zookeeper_tree import fresh, path_of, tree
from tests.servers import ZooKeeper

pytestmark = pytest.mark.zookeeper

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
FORGOTTEN = 15.0  # seconds after a kill -9

# Registers and stays until its stdin ends; then it closes the registry.
OWNER = """
import asyncio, sys
from meshkit.model import Instance
from meshkit.registry import open_registry

async def main(url, weight):
    async with open_registry(url) as registry:
        instance = Instance(id="users-1a2b", service="users", weight=int(weight))
        await registry.register(instance)
        print("registered", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""

Owner = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def owner() -> Iterator[Owner]:
    """Start processes that have registered ``users-1a2b``; the weight tells them apart."""
    with contextlib.ExitStack() as stack:

        def start(url: str, weight: int = 1) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", OWNER, url, str(weight)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout
            assert process.stdout.readline() == "registered\n"
            return process

        yield start


@pytest.fixture
def url(zookeeper: ZooKeeper) -> str:
    return fresh(zookeeper)


@pytest.fixture
async def reader(url: str) -> AsyncIterator[Registry]:
    async with open_registry(url) as registry:
        yield registry


def weights(snapshot: Snapshot) -> list[int]:
    return [each.weight for each in snapshot.instances]


# --- processes that end ---------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_killed_process_is_forgotten(url: str, reader: Registry, owner: Owner) -> None:
    process = owner(url)
    async with Watched(reader.watch("users"), patience=2 * FORGOTTEN) as watched:
        assert weights(await watched.next()) == [1]
        process.send_signal(signal.SIGKILL)
        started = time.monotonic()
        assert weights(await watched.next()) == []
        assert time.monotonic() - started < FORGOTTEN


async def test_a_closed_registry_is_forgotten_at_once(
    url: str, reader: Registry, owner: Owner
) -> None:
    process = owner(url)
    async with Watched(reader.watch("users"), patience=5) as watched:
        assert weights(await watched.next()) == [1]
        process.communicate("")
        assert weights(await watched.next()) == []
    assert process.returncode == 0


@pytest.mark.slow
async def test_one_that_comes_back_at_once_is_never_missing(
    url: str, reader: Registry, owner: Owner
) -> None:
    """It finds its old node, which would go with the old session."""
    process = owner(url)
    async with Watched(reader.watch("users")) as watched:
        assert weights(await watched.next()) == [1]
        process.kill()
        owner(url, 2)
        assert weights(await watched.next()) == [2]
        await watched.nothing(seconds=FORGOTTEN)
    assert weights(await reader.instances("users")) == [2]


# --- one id, several owners -----------------------------------------------------------------------


async def test_the_last_one_wins_and_the_other_learns(url: str, reader: Registry) -> None:
    async with open_registry(url) as first, open_registry(url) as second:
        old = await first.register(USERS)
        async with Watched(reader.watch("users")) as watched:
            assert weights(await watched.next()) == [1]
            new = await second.register(dataclasses.replace(USERS, weight=2))
            assert weights(await watched.next()) == [2]
            with pytest.raises(LeaseLost, match="another one has registered it"):
                await first.renew(old)
            await second.renew(new)
            await first.deregister(USERS.id)
            await first.aclose()
            await watched.nothing(seconds=0.5)
            await second.renew(new)


async def test_a_change_is_no_moment_of_absence(url: str, reader: Registry) -> None:
    """Neither by its owner nor by another one; also whoever reads meanwhile sees it."""
    async with open_registry(url) as first, open_registry(url) as second:
        await first.register(USERS)
        seen: list[int] = []

        async def follow() -> None:
            async for snapshot in reader.watch("users"):
                seen.append(len(snapshot.instances))
                if weights(snapshot) == [60]:
                    return

        async def read() -> None:
            while not following.done():
                seen.append(len((await reader.instances("users")).instances))

        following = asyncio.create_task(follow())
        reading = asyncio.create_task(read())
        for weight in range(1, 61):
            registry = second if weight % 3 == 0 else first
            await registry.register(dataclasses.replace(USERS, weight=weight))
        await asyncio.wait_for(asyncio.gather(following, reading), 20)
        assert len(seen) > 5
        assert set(seen) == {1}


async def test_one_that_moves_to_another_service_leaves_the_first(
    url: str, reader: Registry
) -> None:
    async with open_registry(url) as registry:
        await registry.register(USERS)
        await registry.register(dataclasses.replace(USERS, service="people"))
        assert (await reader.instances("users")).instances == ()
        assert len((await reader.instances("people")).instances) == 1
        await registry.deregister(USERS.id)
        assert await reader.services() == ()


# --- what others do to our nodes ------------------------------------------------------------------


@pytest.fixture
def outsider(zookeeper: ZooKeeper) -> Iterator[Any]:
    with tree(zookeeper) as client:
        yield client


async def test_a_removed_or_replaced_node_is_a_lost_lease(
    url: str, reader: Registry, outsider: Any
) -> None:
    node = f"{path_of(url)}/services/users/{USERS.id}"
    async with open_registry(url) as registry:
        lease = await registry.register(USERS)
        outsider.delete(node)
        with pytest.raises(LeaseLost, match="no longer knows"):
            await registry.renew(lease)
        outsider.create(node, b"squatter")
        with pytest.raises(LeaseLost, match="another one"):
            await registry.renew(lease)
        lease = await registry.register(USERS)
        await registry.renew(lease)
        assert (await reader.instances("users")).instances == (USERS,)


async def test_a_node_with_others_below_it_is_left_alone(url: str, outsider: Any) -> None:
    node = f"{path_of(url)}/services/users/{USERS.id}"
    outsider.create(f"{node}/config", b"important", makepath=True)
    async with open_registry(url) as registry:
        with pytest.raises(RegistryError, match="is no instance: it has nodes below it") as caught:
            await registry.register(USERS)
        assert "\n" not in str(caught.value)
    assert outsider.get(f"{node}/config")[0] == b"important"


async def test_the_services_folder_may_come_and_go(
    url: str, reader: Registry, outsider: Any
) -> None:
    """As Curator's container nodes do, when they are empty."""
    folder = f"{path_of(url)}/services"
    async with (
        open_registry(url) as registry,
        Watched(reader.watch("users")) as watched,
        Watched(reader.watch_services()) as services,
    ):
        assert (await watched.next()).instances == ()
        assert await services.next() == ()
        for remove in (f"{folder}/users", folder, path_of(url)):
            await registry.register(USERS)
            await watched.until(lambda snapshot: snapshot.instances == (USERS,))
            await services.until(lambda found: [each.instances for each in found] == [1])
            outsider.delete(remove, recursive=True)
            await watched.until(lambda snapshot: not snapshot.instances)
            await services.until(lambda found: found == ())
        await registry.register(USERS)
        await watched.until(lambda snapshot: snapshot.instances == (USERS,))


# --- cost -----------------------------------------------------------------------------------------


async def test_a_change_costs_one_read_however_many_there_are(
    url: str, reader: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from meshkit.registry.zookeeper.session import Session

    calls: list[tuple[int, str, str]] = []
    call = Session.call

    async def counted(session: Session, name: str, path: str, *args: Any, **options: Any) -> Any:
        calls.append((session.id, name, path))
        return await call(session, name, path, *args, **options)

    async with open_registry(url) as registry:
        fleet = [
            Instance(id=f"s{service}-{n}", service=f"s{service}")
            for service in range(10)
            for n in range(30)
        ]
        await asyncio.gather(*(registry.register(instance) for instance in fleet))
        async with (
            Watched(reader.watch("s3")) as watched,
            Watched(reader.watch_services()) as services,
        ):
            assert len((await watched.next()).instances) == 30
            assert sum(each.instances for each in await services.next()) == 300
            async with reader._sessions.within() as session:  # type: ignore[attr-defined]
                reading = session.id
            monkeypatch.setattr(Session, "call", counted)
            changed = dataclasses.replace(fleet[3 * 30], weight=9, tags=("new",))
            await registry.register(changed)
            await watched.until(lambda snapshot: changed in snapshot.instances)
            await services.until(lambda found: any(each.tags for each in found))
            await watched.nothing(seconds=0.3)
            reads = [(name, path) for by, name, path in calls if by == reading]
            folder = f"{path_of(url)}/services/s3"
            assert reads == [("get", f"{folder}/{changed.id}")] * 2  # one for each watch

            calls.clear()
            added = Instance(id="s3-new", service="s3")
            await registry.register(added)
            await watched.until(lambda snapshot: added in snapshot.instances)
            await services.until(lambda found: sum(each.instances for each in found) == 301)
            reads = [(name, path) for by, name, path in calls if by == reading]
            assert (
                sorted(reads) == [("get", f"{folder}/s3-new")] * 2 + [("get_children", folder)] * 2
            )
