"""A ZooKeeper that is down, hung, restarted, emptied, or not a ZooKeeper at all."""

import asyncio
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from meshkit.errors import ConfigError, LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance, Snapshot
from meshkit.registry import Lease, Registry, open_registry
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.registry.zookeeper_tree import fresh
from tests.servers import ZooKeeper
from tests.servers.fixtures import MakeZooKeeper
from tests.servers.ports import free_ports
from tests.support.waiting import aeventually, eventually

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})
LEASE = Lease(instance_id=USERS.id, ttl=10.0)
LIMIT = 8.0

Operation = Callable[[Registry], Awaitable[Any]]
OPERATIONS: dict[str, Operation] = {
    "register": lambda registry: registry.register(USERS),
    "instances": lambda registry: registry.instances("users"),
    "watch": lambda registry: anext(registry.watch("users")),
    "services": lambda registry: registry.services(),
    "watch services": lambda registry: anext(registry.watch_services()),
    "get": lambda registry: registry.kv.get("a"),
    "list": lambda registry: registry.kv.list(),
    "put": lambda registry: registry.kv.put("a", b"1"),
    "delete": lambda registry: registry.kv.delete("a"),
}
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


async def failure(operation: Operation, registry: Registry) -> RegistryError:
    """Return what an operation raises: one line of text, and nothing of a library underneath."""
    with pytest.raises(RegistryError) as caught:
        await operation(registry)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def kazoo_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if "zookeeper" in each.name]


def one_up(snapshot: Snapshot) -> bool:
    return [each.id for each in snapshot.up] == [USERS.id]


async def renewed_or_registered(registry: Registry, lease: Lease) -> bool:
    """Do what the runtime does at each of its turns."""
    try:
        await registry.renew(lease)
    except LeaseLost:
        await registry.register(USERS)
    except RegistryUnavailable:
        return False
    return True


# --- nobody there ---------------------------------------------------------------------------------


@operations
async def test_down(
    operation: Operation, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    async with open_registry(f"zookeeper://127.0.0.1:{port}") as registry:
        started = time.monotonic()
        error = await failure(operation, registry)
        await failure(operation, registry)
        assert time.monotonic() - started < LIMIT
    assert type(error) is RegistryUnavailable
    assert str(error) == f"ZooKeeper at 127.0.0.1:{port} can't be reached: Connection refused"
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


async def test_unknown_host() -> None:
    async with open_registry("zookeeper://no-such-host.invalid") as registry:
        for _ in range(3):
            error = await failure(OPERATIONS["register"], registry)
    assert type(error) is RegistryUnavailable
    assert str(error) == (
        "ZooKeeper at no-such-host.invalid:2181 can't be reached: no address is known for that name"
    )


async def test_what_was_never_registered_needs_no_server() -> None:
    (port,) = free_ports(1)
    async with open_registry(f"zookeeper://127.0.0.1:{port}") as registry:
        await registry.deregister(USERS.id)
        with pytest.raises(LeaseLost):
            await registry.renew(LEASE)
    with pytest.raises(RegistryError, match="is closed"):
        await registry.register(USERS)


@pytest.mark.zookeeper
async def test_down_at_start_and_then_up(make_zookeeper: MakeZooKeeper) -> None:
    server = make_zookeeper()
    server.kill()
    async with open_registry(server.url) as registry:
        await failure(OPERATIONS["register"], registry)
        await failure(OPERATIONS["instances"], registry)
        await asyncio.to_thread(server.start)
        await registry.register(USERS)
        assert one_up(await registry.instances("users"))


@pytest.fixture
async def impostor() -> AsyncIterator[Callable[[bytes | None], Awaitable[str]]]:
    """Serve an answer to whatever comes, None for silence; return its address."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(answer: bytes | None) -> str:
            async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1000) and answer is not None:
                        writer.write(answer)
                        await writer.drain()
                        if not answer or answer.startswith(b"HTTP"):
                            break
                writer.close()

            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield serve


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x00\x00\x04\xff\xff\xff\xff",  # too short to be a session
        b"\x00\x00\x00\x25" + b"\x00" * 37,  # a session of no time
        b"\xff" * 64,
        None,
    ],
    ids=["closes", "http", "short", "zero", "negative", "silent"],
)
async def test_not_zookeeper(
    impostor: Callable[[bytes | None], Awaitable[str]],
    answer: bytes | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = await impostor(answer)
    async with open_registry(f"zookeeper://{address}?session=2") as registry:
        started = time.monotonic()
        error = await failure(OPERATIONS["register"], registry)
        assert time.monotonic() - started < LIMIT + 2
        closing = time.monotonic()
    assert time.monotonic() - closing < 5
    assert type(error) is RegistryUnavailable
    assert address in str(error)
    assert "what listens there may be no ZooKeeper" in str(error)
    assert "Traceback" not in capfd.readouterr().err
    await aeventually(_no_threads)


async def _no_threads() -> bool:
    return not kazoo_threads()


# --- hung -----------------------------------------------------------------------------------------


@pytest.mark.zookeeper
@pytest.mark.slow
async def test_hung(make_zookeeper: MakeZooKeeper) -> None:
    """Nothing takes longer than its limit, whether there was a session before or not."""
    server = make_zookeeper()
    async with contextlib.AsyncExitStack() as stack:
        used, unused = open_registry(server.url), open_registry(server.url)
        lease = await used.register(USERS)
        watched = await stack.enter_async_context(Watched(used.watch("users"), patience=30))
        assert one_up(await watched.next())
        server.pause()
        stack.callback(server.resume)
        started = time.monotonic()

        async def timed(operation: Operation, registry: Registry) -> float:
            await failure(operation, registry)
            return time.monotonic() - started

        bounded = [each for name, each in OPERATIONS.items() if "watch" not in name]
        bounded += [lambda registry: registry.renew(lease)]
        times = await asyncio.gather(
            *(timed(operation, used) for operation in bounded),
            *(timed(operation, unused) for operation in bounded[:-1]),
            timed(lambda registry: registry.deregister(USERS.id), used),
        )
        assert max(times) < LIMIT + 4
        # The watch waits for as long as the session may last, but not for ever.
        with pytest.raises(RegistryUnavailable):
            await watched.next()
        assert time.monotonic() - started < 10 * 2 + LIMIT
        for registry in (used, unused):
            closing = time.monotonic()
            await registry.aclose()
            await registry.aclose()
            assert time.monotonic() - closing < 5
        await aeventually(_no_threads)


@pytest.mark.zookeeper
async def test_closing_while_hung_is_bounded(make_zookeeper: MakeZooKeeper) -> None:
    server = make_zookeeper()
    registry = open_registry(server.url)
    await registry.register(USERS)
    watched = Watched(registry.watch("users"))
    await watched.next()
    pending = asyncio.ensure_future(watched.next())
    await asyncio.sleep(0)
    server.pause()
    try:
        renewal = asyncio.ensure_future(failure(lambda each: each.renew(LEASE), registry))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        await registry.aclose()
        assert time.monotonic() - started < 5
        assert "is closed" in str(await renewal)
        with pytest.raises(RegistryError, match="is closed"):
            await pending
        await watched.aclose()
        await aeventually(_no_threads)
    finally:
        server.resume()


@pytest.mark.zookeeper
async def test_a_session_lost_to_a_pause_is_replaced(make_zookeeper: MakeZooKeeper) -> None:
    server = make_zookeeper()
    url = f"{server.url}?session=2"
    async with open_registry(url) as registry, open_registry(url) as reader:
        lease = await registry.register(USERS)
        async with Watched(reader.watch("users"), patience=20) as watched:
            assert one_up(await watched.next())
            server.pause()
            await asyncio.sleep(5)
            server.resume()
            with contextlib.suppress(RegistryUnavailable):
                while True:  # the session is gone for the watch too: it says so, or shows the truth
                    snapshot = await watched.next()
                    if one_up(snapshot):
                        break
                    await renewed_or_registered(registry, lease)
        with pytest.raises((LeaseLost, RegistryUnavailable)):
            await registry.renew(lease)
        await aeventually(lambda: renewed_or_registered(registry, lease))
        await registry.renew(lease)
        async with Watched(reader.watch("users"), patience=20) as watched:
            await watched.until(one_up)
            changed = dataclasses.replace(USERS, weight=5)
            await registry.register(changed)
            await watched.until(lambda snapshot: snapshot.instances == (changed,))
        eventually(lambda: len(kazoo_threads()) == 2 * 3)  # of the lost sessions none are left


# --- restarted ------------------------------------------------------------------------------------


@pytest.mark.zookeeper
async def test_a_restart_with_data_keeps_all(make_zookeeper: MakeZooKeeper) -> None:
    """The session lives on, and so does the watch."""
    server = make_zookeeper()
    async with open_registry(server.url) as registry, open_registry(server.url) as reader:
        lease = await registry.register(USERS)
        async with Watched(reader.watch("users"), patience=20) as watched:
            assert one_up(await watched.next())
            await asyncio.to_thread(server.restart)
            await aeventually(lambda: renewed_or_registered(registry, lease))
            await registry.renew(lease)
            other = dataclasses.replace(USERS, id="users-other")
            await registry.register(other)
            seen = await watched.until(lambda snapshot: len(snapshot.up) == 2)
            assert {each.id for each in seen.instances} == {USERS.id, other.id}


@pytest.mark.zookeeper
async def test_a_restart_without_data_is_healed(make_zookeeper: MakeZooKeeper) -> None:
    """The server refuses a client that has seen more than it has: a new session is made, and not
    only when the old one's time is up."""
    server = make_zookeeper()
    url = f"{server.url}?session=40"
    async with open_registry(url) as registry, open_registry(url) as reader:
        for weight in range(1, 50):
            lease = await registry.register(dataclasses.replace(USERS, weight=weight))
        async with Watched(reader.watch("users"), patience=20) as watched:
            assert one_up(await watched.next())
            server.kill()
            server.empty()
            await asyncio.to_thread(server.start)
            with pytest.raises(RegistryUnavailable, match="come back without data"):
                await watched.next()
        async with Watched(reader.watch("users"), patience=20) as watched:
            assert (await watched.next()).instances == ()
            await aeventually(lambda: lost(registry, lease))
            await registry.register(USERS)
            await watched.until(one_up)
        await registry.renew(lease)


async def lost(registry: Registry, lease: Lease) -> bool:
    """Whether the registry says that the lease is lost, not only that it can't tell."""
    try:
        await registry.renew(lease)
    except LeaseLost:
        return True
    except RegistryUnavailable:
        return False
    raise AssertionError("renewed what the server has forgotten")


# --- too much -------------------------------------------------------------------------------------


@pytest.mark.zookeeper
async def test_a_value_above_the_servers_limit_is_named(
    make_zookeeper: MakeZooKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JVMFLAGS", "-Xmx128m -Djute.maxbuffer=100000")
    server = make_zookeeper()
    async with open_registry(server.url) as registry:
        await registry.register(USERS)
        await registry.kv.put("a", bytes(90_000))
        error = await failure(lambda each: each.kv.put("a", bytes(200_000)), registry)
        assert type(error) is RegistryUnavailable
        assert "/meshkit/kv/a with 200000 bytes" in str(error)
        assert str(error).endswith("raise the servers' jute.maxbuffer")
        entry = await registry.kv.get("a")  # the rest goes on
        assert entry
        assert len(entry.value) == 90_000
        await registry.register(USERS)


async def test_names_that_can_be_no_nodes_are_refused() -> None:
    async with open_registry("zookeeper://127.0.0.1:1") as registry:
        for name in ("", ".", "..", "a/b", "a\0", "a\nb"):
            with pytest.raises(ConfigError, match="can't be the name of a node in ZooKeeper"):
                await registry.instances(name)
            with pytest.raises(ConfigError):
                await anext(registry.watch(name))
            with pytest.raises(ConfigError):
                await registry.register(dataclasses.replace(USERS, id=name))


# --- nothing is left ------------------------------------------------------------------------------


@pytest.mark.zookeeper
async def test_threads_files_and_tasks_end_with_the_registry(zookeeper: ZooKeeper) -> None:
    async def cycle() -> None:
        async with open_registry(fresh(zookeeper)) as registry:
            await registry.register(USERS)
            async with Watched(registry.watch("users")) as watched:
                await watched.next()
            assert len(kazoo_threads()) == 3
        assert kazoo_threads() == []

    await cycle()
    files, tasks = open_files(), len(asyncio.all_tasks())
    for _ in range(10):
        await cycle()
    assert open_files() <= files
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.zookeeper
async def test_a_loop_that_ends_without_closing_is_not_called_any_more(
    zookeeper: ZooKeeper, capfd: pytest.CaptureFixture[str]
) -> None:
    async def forgetful() -> Registry:
        registry = open_registry(f"{fresh(zookeeper)}?session=2")
        await registry.register(USERS)
        return registry

    registry = await asyncio.to_thread(asyncio.run, forgetful())
    session = registry._sessions._current  # type: ignore[attr-defined]
    await asyncio.to_thread(session._client.stop)
    session._client.close()
    eventually(lambda: not kazoo_threads())
    assert capfd.readouterr().err == ""


@pytest.mark.zookeeper
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
async def test_a_forked_child_keeps_nothing_alive(zookeeper: ZooKeeper) -> None:
    url = fresh(zookeeper)
    reading, writing = os.pipe()
    async with open_registry(url) as reader:
        registry = open_registry(url)
        await registry.register(USERS)
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent lets go
            os._exit(0)
        try:
            os.close(reading)
            async with Watched(reader.watch("users")) as watched:
                assert one_up(await watched.next())
                await registry.aclose()
                await watched.until(lambda snapshot: not snapshot.instances)
        finally:
            os.close(writing)
            assert os.waitpid(child, 0)[1] == 0
