"""``etcd://`` against a real server: the contract, what is stored, and to whom it belongs."""

import asyncio
import dataclasses
import json
import logging
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshkit.errors import LeaseLost, RegistryError
from meshkit.model import Endpoint, Instance, Status
from meshkit.registry import Registry, open_registry
from meshkit.testing.registry_contract import Opener, RegistryContract
from meshkit.testing.registry_fixtures import has, open_files
from meshkit.testing.watched import Watched
from tests.registry.processes import Nursery
from tests.servers.etcd import Etcd
from tests.support.waiting import eventually

pytestmark = pytest.mark.etcd

USERS = Instance(
    id="users-1a2b",
    service="users",
    version="1.4.2",
    tags=("blue", "canary"),
    metadata={"team": "accounts"},
    endpoints={"http": Endpoint("10.1.2.3", 8000), "grpc": Endpoint("10.1.2.4", 9000)},
    weight=7,
    zone="a",
    started_at=1763884800.5,
)


class TestEtcd(RegistryContract):
    @pytest.fixture
    def opener(self, etcd: Etcd) -> Opener:
        self.etcd = etcd
        return lambda: open_registry(etcd.url)

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.etcd.delete(f"/meshkit/services/{instance.service}/{instance.id}")


@pytest.fixture
def url(etcd: Etcd) -> str:
    """Keys of the test's own."""
    return f"{etcd.url}/test-{secrets.token_hex(4)}"


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    async with open_registry(url) as registry:
        yield registry


@pytest.fixture
async def other(url: str) -> AsyncIterator[Registry]:
    """Another process, as far as etcd can tell."""
    async with open_registry(url) as registry:
        yield registry


def folder(url: str) -> str:
    return f"/{url.rpartition('/')[2]}/services/"


# --- what is stored -------------------------------------------------------------------------------


async def test_an_instance_is_one_readable_entry(etcd: Etcd, url: str, registry: Registry) -> None:
    await registry.register(USERS)
    ((key, value),) = etcd.entries(folder(url)).items()
    assert key == f"{folder(url)}users/users-1a2b"
    assert json.loads(value) == USERS.to_dict()
    await registry.deregister(USERS.id)
    assert etcd.entries(folder(url)) == {}


async def test_what_is_written_by_hand_is_read(etcd: Etcd, url: str, registry: Registry) -> None:
    etcd.put(f"{folder(url)}users/users-1a2b", json.dumps(USERS.to_dict(), indent=2).encode())
    assert (await registry.instances("users")).instances == (USERS,)


def broken(**changes: object) -> bytes:
    return json.dumps(USERS.to_dict() | changes).encode()


FOREIGN = {
    "users/foreign": b"10.0.0.1:8000",
    "users/empty": b"",
    "users/binary": b"\xff\xfe\x00",
    "users/list": b"[1, 2]",
    "users/number": b"7",
    "users/deep": b"[" * 100_000,
    "users/no-fields": b"{}",
    "users/of-another": broken(),
    "users/status": broken(id="status", status="sleepy"),
    "users/endpoint": broken(id="endpoint", endpoints={"http": "nowhere"}),
    "users/endpoints": broken(id="endpoints", endpoints=["http"]),
    "users/weight": broken(id="weight", weight=-1),
    "users/infinite": broken(id="infinite", weight=float("inf")),
    "users/version": broken(id="version", version=3),
    "users/tags": broken(id="tags", tags=[None]),
    "users/metadata": broken(id="metadata", metadata={"a": 1}),
    "users/UPPER": broken(id="UPPER"),
    "users/users-1a2b/deeper": broken(),
    "users/": broken(),
    "loose": broken(),
    "users/line\nbreak": b"",
}


async def test_foreign_entries_are_skipped_and_named_once(
    etcd: Etcd, url: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    for key, value in FOREIGN.items():
        etcd.put(folder(url) + key, value)
    etcd.put(folder(url).encode() + b"users/\xff", b"")
    await registry.register(USERS)
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == (USERS,)
        for weight in (1, 2):
            changed = dataclasses.replace(USERS, weight=weight)
            await registry.register(changed)
            await watched.until(has(changed))
    for _ in range(2):
        assert [(each.name, each.instances) for each in await registry.services()] == [("users", 1)]
    named = [record.getMessage() for record in caplog.records]
    assert len(named) == len(FOREIGN) + 1
    assert not [line for line in named if "\n" in line or len(line) > 400]
    for key in FOREIGN:
        shown = folder(url) + key.replace("\n", "\\n")
        assert [line for line in named if f"skipping {shown}, which is no instance" in line], key


async def test_an_entry_that_breaks_again_is_named_again(
    etcd: Etcd, url: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"{folder(url)}users/users-1a2b"
    for value in (b"broken", broken(), b"broken again"):
        etcd.put(key, value)
        await registry.instances("users")
        await registry.instances("users")
    assert len(caplog.records) == 2


# --- leases ---------------------------------------------------------------------------------------


async def test_an_expired_lease_is_lost_and_registering_heals(
    etcd: Etcd, url: str, registry: Registry
) -> None:
    before = etcd.leases()
    lease = await registry.register(USERS)
    (ours,) = etcd.leases() - before
    etcd.ask("/v3/lease/revoke", ID=ours)
    with pytest.raises(LeaseLost, match="no longer knows users-1a2b"):
        await registry.renew(lease)
    assert etcd.entries(folder(url)) == {}
    await registry.renew(await registry.register(USERS))
    assert (await registry.instances("users")).up


@pytest.mark.slow
async def test_registering_renews_too(url: str) -> None:
    """Whose state changes all the time has no other renewal."""
    async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
        await registry.register(USERS)
        for weight in range(11, 18):
            changed = dataclasses.replace(USERS, weight=weight)
            await registry.register(changed)
            await watched.until(has(changed))
            await watched.nothing(seconds=2.5)
        await registry.deregister(USERS.id)


async def test_registering_over_an_expired_lease_takes_a_new_one(
    etcd: Etcd, registry: Registry
) -> None:
    """A status change may come before the next renewal would tell."""
    before = etcd.leases()
    await registry.register(USERS)
    (ours,) = etcd.leases() - before
    etcd.ask("/v3/lease/revoke", ID=ours)
    await registry.renew(
        await registry.register(dataclasses.replace(USERS, status=Status.DRAINING))
    )
    assert [each.status for each in (await registry.instances("users")).instances] == ["draining"]


async def test_a_vanished_entry_is_a_lost_lease(etcd: Etcd, url: str, registry: Registry) -> None:
    lease = await registry.register(USERS)
    etcd.delete(f"{folder(url)}users/users-1a2b")
    with pytest.raises(LeaseLost, match="no longer knows users-1a2b"):
        await registry.renew(lease)
    await registry.renew(await registry.register(USERS))


async def test_renewing_is_not_writing(etcd: Etcd, url: str, registry: Registry) -> None:
    lease = await registry.register(USERS)
    before = etcd.ask("/v3/kv/range", key=b"a")["header"]["revision"]
    for _ in range(20):
        await registry.renew(lease)
    assert etcd.ask("/v3/kv/range", key=b"a")["header"]["revision"] == before


async def test_each_instance_lives_by_its_own_renewals(etcd: Etcd, registry: Registry) -> None:
    before = etcd.leases()
    leases = [
        await registry.register(dataclasses.replace(USERS, id=f"users-{n}")) for n in range(10)
    ]
    assert len(etcd.leases() - before) == 10
    await asyncio.gather(*(registry.renew(lease) for lease in leases))
    for lease in leases:
        await registry.deregister(lease.instance_id)
    assert etcd.leases() - before == set()


@pytest.mark.slow
async def test_an_unrenewed_instance_goes(registry: Registry, other: Registry) -> None:
    lease = await registry.register(USERS)
    async with Watched(other.watch("users"), patience=15.0) as watched:
        assert (await watched.next()).up
        await watched.until(has())
    with pytest.raises(LeaseLost):
        await registry.renew(lease)


@pytest.mark.slow
async def test_a_killed_process_is_gone_within_15_seconds(url: str, registry: Registry) -> None:
    nursery = Nursery(url)
    try:
        nursery.spawn("one")
        assert nursery.tell("one", "register", "users", "users-1") == "ok"
        assert nursery.tell("one", "renew", "users-1") == "ok"
        async with Watched(registry.watch("users"), patience=15.0) as watched:
            assert (await watched.next()).up
            nursery.kill("one")
            await watched.until(has())
    finally:
        nursery.close()


# --- one id, two processes ------------------------------------------------------------------------


async def test_a_quick_restart_with_the_same_id_replaces(
    url: str, registry: Registry, other: Registry
) -> None:
    """The lease of the process that was killed still runs, and its end takes nothing away."""
    nursery = Nursery(url)
    try:
        nursery.spawn("one")
        assert nursery.tell("one", "register", "users", USERS.id, "3") == "ok"
        nursery.kill("one")
    finally:
        nursery.close()
    lease = await registry.register(USERS)
    async with Watched(other.watch("users")) as watched:
        assert (await watched.next()).instances == (USERS,)
        for _ in range(4):
            await watched.nothing(seconds=3.3)  # until that lease has ended
            await registry.renew(lease)


async def test_the_last_of_two_wins_and_the_first_does_not_fight(
    registry: Registry, other: Registry, url: str
) -> None:
    lease = await registry.register(USERS)
    newer = dataclasses.replace(USERS, weight=9)
    newer_lease = await other.register(newer)
    with pytest.raises(LeaseLost, match="another process that lives: each needs an id of its own"):
        await registry.renew(lease)
    for _ in range(2):
        with pytest.raises(RegistryError, match="another process that lives") as caught:
            await registry.register(USERS)
        assert type(caught.value) is RegistryError  # else it would be registered anew at once
    await other.renew(newer_lease)
    assert (await registry.instances("users")).instances == (newer,)
    await other.deregister(USERS.id)
    await registry.renew(await registry.register(USERS))  # as soon as the place is free
    assert (await registry.instances("users")).instances == (USERS,)


@pytest.mark.parametrize("times", [1, 2])
async def test_the_first_of_two_does_not_remove_the_last(
    registry: Registry, other: Registry, times: int
) -> None:
    await registry.register(USERS)
    lease = await other.register(USERS)
    for _ in range(times):
        await registry.deregister(USERS.id)
    await other.renew(lease)
    assert (await registry.instances("users")).instances == (USERS,)


async def test_any_process_can_deregister_an_id(
    etcd: Etcd, url: str, registry: Registry, other: Registry
) -> None:
    """Exactly this one: not its neighbours, and nothing of others."""
    neighbours = [
        dataclasses.replace(USERS, id=each) for each in ("users-1a2", "users-1a2b-c", "a")
    ]
    for instance in (USERS, *neighbours, dataclasses.replace(USERS, service="users-1a2b")):
        await registry.register(instance)
    etcd.put(f"{folder(url)}users/users-1a2b/deeper", b"foreign")
    etcd.put(f"{folder(url)}users-1a2b", b"foreign")
    await other.deregister(USERS.id)
    left = set(etcd.entries(folder(url)))
    assert left == {
        *(f"{folder(url)}users/{each.id}" for each in neighbours),
        f"{folder(url)}users/users-1a2b/deeper",
        f"{folder(url)}users-1a2b",
    }


# --- cost -----------------------------------------------------------------------------------------


async def test_renewals_share_one_stream(registry: Registry, etcd: Etcd) -> None:
    leases = [
        await registry.register(dataclasses.replace(USERS, id=f"users-{n}")) for n in range(5)
    ]

    def streams() -> int:
        started = 'grpc_server_started_total{grpc_method="LeaseKeepAlive"'
        (line,) = (line for line in etcd.metrics().splitlines() if line.startswith(started))
        return int(float(line.split()[-1]))

    for lease in leases:
        await registry.renew(lease)
    before = streams()
    for _ in range(10):
        await asyncio.gather(*(registry.renew(lease) for lease in leases))
    assert streams() == before


async def test_open_and_close_leave_nothing_behind(url: str) -> None:
    def used() -> tuple[int, int]:
        return open_files(), len(asyncio.all_tasks())

    async def cycle() -> None:
        async with open_registry(url) as registry, Watched(registry.watch("users")) as watched:
            lease = await registry.register(USERS)
            await registry.renew(lease)
            await watched.until(has(USERS))
            assert await registry.services()
            await registry.deregister(USERS.id)

    for _ in range(3):
        await cycle()
    before = used()
    for _ in range(30):
        await cycle()
    eventually(lambda: used() <= before)


WHOLE_LIFE = """
import asyncio, sys
from meshkit.model import Instance
from meshkit.registry import open_registry

async def main():
    async with open_registry(sys.argv[1]) as registry:
        lease = await registry.register(Instance(id="users-1", service="users"))
        await registry.renew(lease)
        watch = registry.watch("users")
        assert (await anext(watch)).up
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.1)
        waiting.cancel()
        assert await registry.services()
        await registry.kv.put("a", b"b")
        await registry.deregister("users-1")

asyncio.run(main(), debug=True)
"""


async def run(script: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-X", "dev", "-c", script, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    shown, complaints = await process.communicate()
    # asyncio's debug mode reports an import as a slow step: that is no warning.
    serious = [
        line for line in complaints.decode().splitlines() if not line.startswith("Executing")
    ]
    assert (shown, serious, process.returncode) == (b"", [], 0)


async def test_a_whole_life_without_a_warning(url: str) -> None:
    await run(WHOLE_LIFE, url)


NAMESAKES = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from meshkit.registry import open_registry

async def main():
    async with open_registry(sys.argv[1]) as registry:
        await registry.services()
        import auth_pb2, kv_pb2, rpc_pb2  # after ours are in use
        assert auth_pb2.AuthenticateRequest(who="me").who == "me"
        assert rpc_pb2.RangeRequest(first=kv_pb2.KeyValue(name="n")).first.name == "n"
        await registry.services()

asyncio.run(main())
"""


async def test_a_users_own_protos_may_have_etcds_names(url: str, tmp_path: Path) -> None:
    """The packages too: other clients' generated code makes such files fail to import."""
    (tmp_path / "auth.proto").write_text(
        'syntax = "proto3"; package etcdserverpb; message AuthenticateRequest { string who = 7; }'
    )
    (tmp_path / "kv.proto").write_text(
        'syntax = "proto3"; package mvccpb; message KeyValue { string name = 9; }'
    )
    (tmp_path / "rpc.proto").write_text(
        'syntax = "proto3"; package etcdserverpb; import "kv.proto"; '
        "message RangeRequest { mvccpb.KeyValue first = 3; }"
    )
    compiled = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--python_out={tmp_path}"),
        *("auth.proto", "kv.proto", "rpc.proto"),
    )
    assert await compiled.wait() == 0
    await run(NAMESAKES, url, str(tmp_path))


async def test_no_secret_and_no_noise_in_the_log(
    url: str, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="meshkit")
    await registry.renew(await registry.register(USERS))
    assert caplog.text == ""
    assert registry.url == url
