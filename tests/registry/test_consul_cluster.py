"""Three servers and a client agent: elections, lost servers, and a client agent that forgets."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable

import pytest

from meshkit import Mesh, MeshService, Runtime, get
from meshkit.errors import LeaseLost, NoInstances, RegistryError, RegistryUnavailable
from meshkit.model import Endpoint, Instance, Snapshot, Status
from meshkit.registry import Lease, Registry, open_registry
from meshkit.runtime.registration import Registration
from meshkit.testing.registry_contract import Opener, RegistryContract
from tests.servers import ConsulCluster
from tests.support.waiting import aeventually, eventually

pytestmark = [pytest.mark.consul, pytest.mark.slow]

PATIENCE = 60.0
USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


class Follower:
    """A caller's watch: it begins anew after each error; notes what it saw and when."""

    def __init__(self, registry: Registry, service: str) -> None:
        self.snapshot: Snapshot | None = None
        self.errors: list[tuple[float, RegistryError]] = []
        self.seen: list[tuple[float, list[str]]] = []
        self._registry, self._service = registry, service
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(self._registry.watch(self._service)) as watch:
                    async for snapshot in watch:
                        self.snapshot = snapshot
                        self.seen.append((time.monotonic(), [each.id for each in snapshot.up]))
            except RegistryError as error:
                self.errors.append((time.monotonic(), error))
                await asyncio.sleep(0.2)

    async def until(self, holds: Callable[[Snapshot], bool]) -> float:
        """Wait until it holds of what was seen last; return how long that took."""
        started = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while self.snapshot is None or not holds(self.snapshot):
                await asyncio.sleep(0.01)
        return time.monotonic() - started

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@contextlib.asynccontextmanager
async def following(url: str, service: str = "users") -> AsyncIterator[Follower]:
    async with open_registry(url) as registry:
        follower = Follower(registry, service)
        try:
            yield follower
        finally:
            await follower.aclose()


async def heartbeats(registry: Registry, lease: Lease, instance: Instance) -> None:
    """What the runtime does: renew, and register anew when the lease is lost."""
    while True:
        with contextlib.suppress(RegistryError):
            try:
                await registry.renew(lease)
            except LeaseLost:
                lease = await registry.register(instance)
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def beating(registry: Registry, instance: Instance) -> AsyncIterator[None]:
    lease = await registry.register(instance)
    task = asyncio.create_task(heartbeats(registry, lease, instance))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def replicated(cluster: ConsulCluster, instance: Instance) -> None:
    """Wait until every server has it."""
    for server in cluster.servers:
        while not server.get(f"/v1/health/service/{instance.service}?stale"):
            time.sleep(0.01)


def ids(*expected: str) -> Callable[[Snapshot], bool]:
    return lambda snapshot: [each.id for each in snapshot.up] == list(expected)


class TestConsulClient(RegistryContract):
    """The contract where one registers with the client agent, and all read there."""

    patience = 30.0
    # A client agent pushes to its servers, and reads back from any of them.
    calm = 1.0

    @pytest.fixture
    def opener(self, consul_client: ConsulCluster) -> Opener:
        self.agent = consul_client.client
        return lambda: open_registry(self.agent.url)

    async def forget(self, registrar: Registry, instance: Instance) -> None:
        self.agent.put(f"/v1/agent/service/deregister/{instance.id}")


async def test_registered_with_the_client_agent_seen_through_every_server(
    consul_cluster: ConsulCluster,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_registry(consul_cluster.client.url))
        followers = [
            await stack.enter_async_context(following(server.url))
            for server in consul_cluster.servers
        ]
        lease = await client.register(USERS)
        for follower in followers:
            await follower.until(ids(USERS.id))
        await client.renew(lease)
        await client.register(dataclasses.replace(USERS, weight=4))
        for follower in followers:
            await follower.until(lambda snapshot: snapshot.instances[0].weight == 4)
        await client.deregister(USERS.id)
        for follower in followers:
            await follower.until(ids())
            assert not follower.errors


@pytest.mark.parametrize("options", ["", "?cached=true", "?watch_connections=0"])
async def test_a_killed_leader_does_not_blind_who_watches(
    consul_cluster: ConsulCluster, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client = consul_cluster.client
    async with open_registry(client.url) as registry, following(client.url + options) as follower:
        async with beating(registry, USERS):
            await follower.until(ids(USERS.id))
            # What a follower has not heard of yet it can't know without its leader.
            await asyncio.to_thread(replicated, consul_cluster, USERS)
            leader, killed = consul_cluster.leader(), time.monotonic()
            await asyncio.to_thread(leader.kill)
            second = dataclasses.replace(USERS, id="users-2")
            # The agent takes it at once, and tells its servers when they have a leader.
            async with beating(registry, second):
                registered = time.monotonic() - killed
                await follower.until(ids(USERS.id, "users-2"))
                seen = time.monotonic() - killed
        outage = max((when for when, _ in follower.errors), default=killed) - killed
        assert all(USERS.id in found for when, found in follower.seen if when > killed)
        assert {type(error) for _, error in follower.errors} <= {RegistryUnavailable}
    with capsys.disabled():
        print(
            f"\nleader killed, watch {options or 'stale'}: {len(follower.errors)} failures, the "
            f"last after {outage:.1f} s; registered after {registered:.2f} s, seen {seen:.1f} s"
        )


async def test_all_servers_down_and_back(consul_cluster: ConsulCluster) -> None:
    """The list stays what it was; who was registered meanwhile is there afterwards."""
    client = consul_cluster.client
    async with (
        open_registry(client.url) as registry,
        following(client.url) as follower,
        beating(registry, USERS),
    ):
        await follower.until(ids(USERS.id))
        for server in consul_cluster.servers:
            await asyncio.to_thread(server.kill)
        async with asyncio.timeout(PATIENCE):
            while not follower.errors:
                await asyncio.sleep(0.1)
        with pytest.raises(RegistryUnavailable) as caught:
            await registry.instances("users")
        assert "\n" not in str(caught.value)
        async with beating(registry, dataclasses.replace(USERS, id="users-2")):
            assert follower.snapshot is not None
            assert ids(USERS.id)(follower.snapshot)
            for server in consul_cluster.servers:
                server.launch()
            for server in consul_cluster.servers:
                await asyncio.to_thread(server.wait_ready)
            await follower.until(ids(USERS.id, "users-2"))


async def test_a_killed_client_agent_keeps_what_it_had(consul_cluster: ConsulCluster) -> None:
    client, server = consul_cluster.client, consul_cluster.follower()
    async with open_registry(client.url) as registry, following(server.url) as follower:
        lease = await registry.register(USERS)
        await follower.until(ids(USERS.id))
        await asyncio.to_thread(client.kill)
        with pytest.raises(RegistryUnavailable, match="can't be reached: Connection refused"):
            await registry.renew(lease)
        await asyncio.to_thread(client.start)
        await registry.renew(lease)  # the same lease: the agent's data is on its disk
        await follower.until(ids(USERS.id))


class Users(MeshService):
    name = "users"

    @get("/who")
    async def who(self) -> str:
        return "me"


async def test_who_serves_on_while_its_agent_is_lost_is_called_if_nobody_else_is_left(
    consul_cluster: ConsulCluster,
) -> None:
    client, server = consul_cluster.client, consul_cluster.follower()
    async with Runtime(Users(), registry=client.url), Mesh(server.url) as mesh:
        users = mesh.http("users")

        async def found() -> bool:
            """Whether the follower knows what the agent has told the leader."""
            try:
                return bool((await users.get("/who")).json() == "me")
            except NoInstances:
                return False

        await aeventually(found, within=PATIENCE)
        await asyncio.to_thread(client.kill)

        async def lost() -> bool:
            """Whether the servers have found the agent missing, and the caller believes it."""
            listed = mesh.target("users").subscription.snapshot
            assert listed is not None
            return [each.status for each in listed.instances] == [Status.DOWN]

        await aeventually(lost, within=PATIENCE)
        assert (await users.get("/who")).json() == "me"


@pytest.mark.parametrize("fixed", [False, True], ids=["another node id", "a fixed node id"])
async def test_an_emptied_client_agent_is_refused_by_its_servers_and_we_say_why(
    consul_cluster: ConsulCluster, caplog: pytest.LogCaptureFixture, *, fixed: bool
) -> None:
    client = consul_cluster.client
    before = client.get("/v1/agent/self")["Config"]["NodeID"]
    if fixed:
        client.configure(node_id=before)
    registration = Registration(lambda: open_registry(client.url), USERS, lag_limit=5)
    registration.start()
    try:
        assert await registration.first(10)
        await asyncio.to_thread(replicated, consul_cluster, USERS)
        await asyncio.to_thread(client.kill)
        client.empty()
        await asyncio.to_thread(client.start)
        # It is registered anew, to which the agent says yes.
        await asyncio.to_thread(eventually, lambda: USERS.id in client.get("/v1/agent/services"))
        await asyncio.sleep(14)
        warnings = [text for each in caplog.records if "list" in (text := each.getMessage())]
        after = client.get("/v1/agent/self")["Config"]["NodeID"]
        # A second one, that was never seen by the servers.
        second = dataclasses.replace(USERS, id="users-2")
        other = Registration(lambda: open_registry(client.url), second, lag_limit=5)
        other.start()
        try:
            await asyncio.sleep(14)
        finally:
            await other.stop()
    finally:
        await registration.stop()
    warnings += [text for each in caplog.records if "does not list" in (text := each.getMessage())]
    if fixed:
        assert warnings == []
        return
    assert f"accepted {USERS.id} but may list an earlier state after 10 s" in warnings[0]
    assert "accepted users-2 but does not list it after 10 s" in warnings[1]
    for warning in warnings:
        assert f"know its node node4 by another id, {before}" in warning
        assert f"is {after} now: give it a folder that lasts or a fixed node_id" in warning
