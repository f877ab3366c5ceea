"""An etcd that is down, hung, restarted, emptied, without a leader, or not an etcd at all."""

import asyncio
import contextlib
import dataclasses
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from meshkit.errors import LeaseLost, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import Lease, Registry, open_registry
from meshkit.registry.etcd import watching
from meshkit.registry.etcd.client import Client
from meshkit.registry.etcd.messages import TXN, Rpc
from meshkit.registry.etcd.options import EtcdOptions
from meshkit.testing.keyvalue_fixtures import values as holds
from meshkit.testing.registry_fixtures import has, open_files
from meshkit.testing.watched import Watched
from tests.servers.etcd import Etcd
from tests.servers.fixtures import MakeEtcd
from tests.servers.ports import free_ports
from tests.support.waiting import aeventually

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})

Operation = Callable[[Registry], Awaitable[Any]]
OPERATIONS: dict[str, Operation] = {
    "register": lambda registry: registry.register(USERS),
    "deregister": lambda registry: registry.deregister(USERS.id),
    "instances": lambda registry: registry.instances("users"),
    "services": lambda registry: registry.services(),
    "kv.get": lambda registry: registry.kv.get("a"),
    "kv.put": lambda registry: registry.kv.put("a", b"b", expect=7),
    "kv.delete": lambda registry: registry.kv.delete("a"),
}
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


async def failure(awaitable: Awaitable[Any]) -> RegistryError:
    """Return what is raised: one line of text, and nothing of a library underneath."""
    with pytest.raises(RegistryError) as caught:
        await awaitable
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def members_url(members: list[Etcd]) -> str:
    return f"etcd://{','.join(member.address for member in members)}"


def number_of(members: list[Etcd], *, leader: bool) -> int:
    return next(n for n, member in enumerate(members) if member.is_leader() == leader)


async def find_leader(members: list[Etcd]) -> Etcd:
    async def leader() -> Etcd | None:
        return next((member for member in members if member.is_leader()), None)

    found = await aeventually(leader)
    assert found
    return found


# --- nobody there ---------------------------------------------------------------------------------


@operations
async def test_down(operation: Operation) -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    async with open_registry(f"etcd://127.0.0.1:{port}") as registry:
        error = await failure(operation(registry))
    assert type(error) is RegistryUnavailable
    assert str(error) == f"etcd at 127.0.0.1:{port} can't be reached: Connection refused"
    assert time.monotonic() - started < 5


async def test_all_of_several_are_down() -> None:
    one, two = free_ports(2)
    async with open_registry(f"etcd://127.0.0.1:{one},127.0.0.1:{two}") as registry:
        error = await failure(registry.services())
    assert type(error) is RegistryUnavailable
    assert sorted(str(error).split("; ")) == sorted(
        f"etcd at 127.0.0.1:{port} can't be reached: Connection refused" for port in (one, two)
    )


async def test_unknown_host() -> None:
    async with open_registry("etcd://no-such-host.invalid") as registry:
        error = await failure(registry.services())
    assert type(error) is RegistryUnavailable
    assert str(error) == ("etcd at no-such-host.invalid:2379 can't be reached: its name is unknown")


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


async def test_silent(silent: str) -> None:
    async with open_registry(f"etcd://{silent}") as registry:
        error = await failure(registry.services())
    assert type(error) is RegistryUnavailable
    assert str(error) == f"etcd at {silent} does not answer"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "does not speak gRPC"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak gRPC"),
        (b"", "closed the connection; if it expects TLS, use etcd+tls://"),
    ],
)
async def test_not_an_etcd(answer: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with open_registry(f"etcd://127.0.0.1:{port}") as registry:
            assert reason in str(await failure(registry.services()))


@operations
async def test_after_closing(operation: Operation) -> None:
    registry = open_registry("etcd://127.0.0.1:1")
    await registry.aclose()
    assert str(await failure(operation(registry))) == "the registry at 127.0.0.1:1 is closed"


async def test_renewing_what_was_never_registered() -> None:
    """It needs no server to be known."""
    async with open_registry("etcd://127.0.0.1:1") as registry:
        error = await failure(registry.renew(Lease(instance_id="users-1", ttl=10.0)))
    assert type(error) is LeaseLost


# --- IPv6, names ----------------------------------------------------------------------------------


@pytest.mark.etcd
@pytest.mark.parametrize("host", ["[::1]", "localhost"])
async def test_other_ways_to_name_it(host: str, make_etcd: MakeEtcd) -> None:
    (port,) = free_ports(1)
    listen = f"http://[::1]:{port}" if host == "[::1]" else f"http://127.0.0.1:{port}"
    make_etcd(arguments=["--listen-client-urls", listen])  # the last one counts
    async with open_registry(f"etcd://{host}:{port}") as registry:
        await registry.renew(await registry.register(USERS))
        assert (await registry.instances("users")).up


# --- one server -----------------------------------------------------------------------------------


@pytest.mark.etcd
async def test_down_at_start_and_then_up(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    etcd.kill()
    async with open_registry(etcd.url) as registry:
        await failure(registry.register(USERS))
        await failure(registry.instances("users"))
        await asyncio.to_thread(etcd.start)
        await aeventually(lambda: succeeds(registry.register(USERS)))
        assert (await registry.instances("users")).up


async def succeeds(awaitable: Awaitable[Any]) -> bool:
    try:
        await awaitable
    except RegistryUnavailable:
        return False
    return True


@pytest.mark.etcd
@pytest.mark.slow
async def test_hung(make_etcd: MakeEtcd) -> None:
    """Watches and renewals notice, though no connection breaks; afterwards all goes on."""
    etcd = make_etcd()
    async with (
        open_registry(etcd.url) as registry,
        open_registry(etcd.url) as fresh,
        Watched(registry.watch("users"), patience=16.0) as watched,
        Watched(registry.watch_services(), patience=16.0) as services,
        Watched(registry.kv.watch(), patience=16.0) as values,
    ):
        lease = await registry.register(USERS)
        await registry.renew(lease)
        await watched.until(has(USERS))
        await services.next()
        await values.next()
        watches = (watched, services, values)
        for each in watches:
            with contextlib.suppress(AssertionError):
                await each.nothing(seconds=0.1)
        etcd.pause()
        started = time.monotonic()
        try:
            errors = await asyncio.gather(
                *(failure(each.next()) for each in watches),
                failure(registry.renew(lease)),
                failure(registry.register(USERS)),
                failure(fresh.services()),
                failure(fresh.deregister("users-2")),
            )
        finally:
            etcd.resume()
        assert time.monotonic() - started < 16
        assert {type(error) for error in errors} == {RegistryUnavailable}
        assert all("etcd at " in str(error) for error in errors)
        await aeventually(lambda: succeeds(registry.renew(lease)))
        assert (await registry.instances("users")).instances == (USERS,)


@pytest.mark.etcd
async def test_a_restart_with_its_data_keeps_the_lease(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    async with open_registry(etcd.url) as registry, Watched(registry.watch("users")) as watched:
        lease = await registry.register(USERS)
        await watched.until(has(USERS))
        await watched.nothing(seconds=0.1)
        await asyncio.to_thread(etcd.restart)
        error = await failure(watched.next())
        assert type(error) is RegistryUnavailable
        await aeventually(lambda: succeeds(registry.renew(lease)))
        async with Watched(registry.watch("users")) as again:
            assert (await again.next()).instances == (USERS,)
            await registry.deregister(USERS.id)
            await again.until(has())


@pytest.mark.etcd
async def test_a_restart_without_its_data_loses_it(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    async with open_registry(etcd.url) as registry:
        for port in range(1, 100):  # so that the new server's revision is far below
            lease = await registry.register(
                dataclasses.replace(USERS, endpoints={"http": Endpoint("127.0.0.1", port)})
            )
        async with Watched(registry.watch("users")) as watched:
            await watched.next()
            waiting = asyncio.ensure_future(watched.next())
            await asyncio.sleep(0.2)
            etcd.kill()
            etcd.empty()
            await asyncio.to_thread(etcd.start)
            with pytest.raises(RegistryUnavailable):
                await waiting
        await aeventually(lambda: succeeds(registry.services()))
        with pytest.raises(LeaseLost):
            await registry.renew(lease)
        async with Watched(registry.watch("users")) as watched:
            assert (await watched.next()).instances == ()
            await registry.renew(await registry.register(USERS))
            await watched.until(has(USERS))


@pytest.mark.etcd
async def test_a_server_that_was_emptied_between_list_and_watch(make_etcd: MakeEtcd) -> None:
    """The watch would start in a future that is far away, and be silent until then."""
    etcd = make_etcd()
    options = EtcdOptions(endpoints=(Endpoint.parse(etcd.address),))
    client = Client(options)
    try:
        for n in range(20):
            etcd.put("/meshkit/a", b"%d" % n)
        changes = watching.follow(client, b"/meshkit/")
        assert len((await anext(changes)).entries) == 1
        etcd.kill()
        etcd.empty()
        await asyncio.to_thread(etcd.start)
        error = await failure(asyncio.wait_for(anext(changes), 16))
        assert type(error) is RegistryUnavailable
        await aeventually(lambda: succeeds(watching.read(client, b"/meshkit/")))
    finally:
        await client.aclose()


@pytest.mark.etcd
async def test_history_that_was_compacted_ends_the_watch(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    client = Client(EtcdOptions(endpoints=(Endpoint.parse(etcd.address),)))
    try:
        changes = watching.follow(client, b"/meshkit/")
        listed = await anext(changes)
        for n in range(10):
            etcd.put("/meshkit/a", b"%d" % n)
        etcd.ask("/v3/kv/compaction", revision=listed.revision + 8)
        error = await failure(asyncio.wait_for(anext(changes), 16))
        assert type(error) is RegistryUnavailable
        assert str(error).endswith("is lost: the watch fell behind etcd's history")
    finally:
        await client.aclose()


@pytest.mark.etcd
async def test_what_etcd_does_not_accept(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd(arguments=["--max-request-bytes", "2000"])
    async with open_registry(etcd.url) as registry:
        large = dataclasses.replace(USERS, metadata={f"a{n}": "x" * 500 for n in range(10)})
        error = await failure(registry.register(large))
        assert str(error) == f"etcd at {etcd.address} did not accept Txn: request is too large"
        error = await failure(registry.kv.put("a", b"x" * 3000))
        assert str(error) == f"etcd at {etcd.address} did not accept Txn: request is too large"
        error = await failure(registry.kv.put("a", b"x" * 520_000))
        assert "did not accept Txn" in str(error)
        await registry.renew(await registry.register(USERS))


@pytest.mark.etcd
async def test_closing_while_everything_is_under_way(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    before = open_files(), len(asyncio.all_tasks())
    registry = open_registry(etcd.url)
    lease = await registry.register(USERS)
    await registry.renew(lease)
    etcd.pause()
    try:
        pending = [
            asyncio.ensure_future(each)
            for each in (
                registry.renew(lease),
                registry.register(dataclasses.replace(USERS, id="users-2")),
                registry.services(),
                anext(registry.watch("users")),
                registry.kv.get("a"),
            )
        ]
        await asyncio.sleep(0.3)
        await registry.aclose()
        await registry.aclose()
        ended = await asyncio.wait_for(asyncio.gather(*pending, return_exceptions=True), 5)
    finally:
        etcd.resume()
    assert [type(each) for each in ended] == [RegistryError] * 5
    assert {str(each) for each in ended} == {f"the registry at {etcd.address} is closed"}
    del pending, ended

    async def none_left() -> bool:
        return (open_files(), len(asyncio.all_tasks())) <= before

    await aeventually(none_left)


@pytest.mark.etcd
async def test_cancelled_renewals_do_not_mix_up_leases(etcd: Etcd) -> None:
    async with open_registry(etcd.url) as registry:
        leases = [
            await registry.register(dataclasses.replace(USERS, id=f"cancel-{n}")) for n in range(3)
        ]
        for _ in range(30):
            tasks = [asyncio.ensure_future(registry.renew(lease)) for lease in leases]
            await asyncio.sleep(0.002)
            tasks[0].cancel()
            await asyncio.gather(*tasks[1:])
            await asyncio.gather(tasks[0], return_exceptions=True)
        for lease in leases:
            await registry.deregister(lease.instance_id)


# --- three members --------------------------------------------------------------------------------


@pytest.mark.etcd
@pytest.mark.slow
async def test_one_of_three_hangs_and_calls_go_on(etcd_members: list[Etcd]) -> None:
    url = members_url(etcd_members)
    follower = etcd_members[number_of(etcd_members, leader=False)]
    async with contextlib.AsyncExitStack() as stack:
        # So many that some have chosen the one that will hang.
        registries = [await stack.enter_async_context(open_registry(url)) for _ in range(12)]
        leases = []
        for n, registry in enumerate(registries):
            leases.append(await registry.register(dataclasses.replace(USERS, id=f"users-{n}")))
            await registry.renew(leases[-1])
        follower.pause()
        stack.callback(follower.resume)
        for _ in range(3):
            started = time.monotonic()
            await asyncio.gather(
                *(registry.renew(lease) for registry, lease in zip(registries, leases, strict=True))
            )
            found = await asyncio.gather(*(registry.instances("users") for registry in registries))
            assert all(len(snapshot.up) == 12 for snapshot in found)
            assert time.monotonic() - started < 9
        late = [await stack.enter_async_context(open_registry(url)) for _ in range(6)]
        for registry in late:
            assert len((await registry.instances("users")).up) == 12
        async with contextlib.AsyncExitStack() as leaving:
            for n, registry in enumerate(registries):
                leaving.push_async_callback(registry.deregister, f"users-{n}")


@pytest.mark.etcd
@pytest.mark.slow
async def test_what_a_hung_member_carries_out_late_changes_nothing(
    etcd_members: list[Etcd], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one was asked meanwhile, and newer things have been written since."""
    follower = etcd_members[number_of(etcd_members, leader=False)]
    others = [member for member in etcd_members if member is not follower]
    unlucky: list[str] = []
    call = Client.call

    async def ask_the_hung_first(self: Client, rpc: Rpc, request: Any, **options: Any) -> Any:
        if rpc is TXN and unlucky:
            unlucky.pop()
            self.current = Endpoint.parse(follower.address)
        return await call(self, rpc, request, **options)

    monkeypatch.setattr(Client, "call", ask_the_hung_first)
    async with (
        open_registry(members_url(etcd_members)) as registry,
        open_registry(members_url(others)) as reader,
    ):
        await registry.register(USERS)
        await registry.kv.put("a", b"0")
        for n in range(4):  # a request that was given up is not always carried out
            follower.pause()
            try:
                unlucky[:] = ["put", "register"]
                early = dataclasses.replace(USERS, weight=10 * n + 2)
                await asyncio.gather(registry.kv.put("a", b"early"), registry.register(early))
                assert not unlucky
                last = dataclasses.replace(USERS, weight=10 * n + 3)
                await registry.register(last)
                await registry.kv.put("a", b"%d" % n)
            finally:
                follower.resume()
            async with (
                Watched(reader.watch("users")) as users,
                Watched(reader.kv.watch("a")) as values,
            ):
                await users.until(has(last))
                await values.until(holds(b"%d" % n))
                await asyncio.gather(users.nothing(seconds=1.5), values.nothing(seconds=1.5))
        await registry.deregister(USERS.id)


@pytest.mark.etcd
@pytest.mark.slow
@pytest.mark.parametrize("way", ["kill", "pause"])
async def test_the_leader_goes(etcd_members: list[Etcd], way: str) -> None:
    url = members_url(etcd_members)
    async with open_registry(url) as registry, open_registry(url) as reader:
        lease = await registry.register(USERS)
        leader = await find_leader(etcd_members)
        (leader.kill if way == "kill" else leader.pause)()
        try:
            await aeventually(lambda: succeeds(registry.renew(lease)))
            await aeventually(lambda: succeeds(registry.register(USERS)))
            # A watch through another member may not notice at all; one that fails can be renewed.
            await aeventually(lambda: succeeds(reader.services()))
            async with Watched(reader.watch("users")) as watched:
                assert (await watched.next()).instances == (USERS,)
                await registry.deregister(USERS.id)
                await watched.until(has())
        finally:
            leader.resume()


@pytest.mark.etcd
@pytest.mark.slow
async def test_watches_on_a_member_that_is_killed_or_paused_fail(etcd_members: list[Etcd]) -> None:
    for number, way in enumerate(("kill", "pause")):
        member = etcd_members[number]
        async with open_registry(member.url) as registry:
            async with Watched(registry.watch("users"), patience=16.0) as watched:
                await watched.next()
                await watched.nothing(seconds=0.2)
                (member.kill if way == "kill" else member.pause)()
                try:
                    error = await failure(watched.next())
                    assert type(error) is RegistryUnavailable
                finally:
                    await asyncio.to_thread(member.start if way == "kill" else member.resume)
            await aeventually(lambda: succeeds(registry.services()))


@pytest.mark.etcd
@pytest.mark.slow
async def test_without_a_quorum_the_list_is_unknown_not_empty(etcd_members: list[Etcd]) -> None:
    url = members_url(etcd_members)
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry(url))
        lease = await registry.register(USERS)
        readers = [
            await stack.enter_async_context(open_registry(member.url)) for member in etcd_members
        ]
        watches = [
            await stack.enter_async_context(Watched(each.watch("users"), patience=16.0))
            for each in readers
        ]
        for watched in watches:
            await watched.next()
            await watched.nothing(seconds=0.1)
        for member in etcd_members[:2]:
            member.kill()
        errors = await asyncio.gather(*(failure(watched.next()) for watched in watches))
        assert {type(error) for error in errors} == {RegistryUnavailable}
        last = etcd_members[2].address
        assert any(f"etcd at {last} has no leader" in str(error) for error in errors)
        for operation in (
            lambda: registry.renew(lease),
            lambda: registry.register(USERS),
            registry.services,
        ):
            error = await failure(operation())
            assert type(error) is RegistryUnavailable
            assert f"etcd at {last} has no leader" in str(error)
        for member in etcd_members[:2]:
            await asyncio.to_thread(member.launch)
        for member in etcd_members[:2]:
            await asyncio.to_thread(member.wait_ready)
        await aeventually(lambda: succeeds(registry.register(USERS)))
        async with Watched(registry.watch("users")) as again:
            assert (await again.next()).instances == (USERS,)
