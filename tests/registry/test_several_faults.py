"""A real service in two real registries at once, while the old one of them has its troubles."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from meshkit import Mesh
from meshkit.errors import RegistryError
from meshkit.model import Snapshot
from meshkit.registry import open_registry
from meshkit.testing.watched import Watched
from tests.servers import Consul, ZooKeeper
from tests.servers.fixtures import MakeConsul
from tests.support.load import Load
from tests.support.processes import Processes, ServiceProcess
from tests.support.waiting import aeventually

pytestmark = pytest.mark.consul

TTL = 10.0


Server = Consul | ZooKeeper


@pytest.fixture(params=["consul", pytest.param("zookeeper", marks=pytest.mark.zookeeper)])
def old(request: pytest.FixtureRequest) -> Server:
    make: Callable[[], Server] = request.getfixturevalue(f"make_{request.param}")
    return make()


@pytest.fixture
def new(make_consul: MakeConsul) -> Consul:
    return make_consul()


@pytest.fixture
def both(old: Server, new: Consul) -> str:
    return f"{old.url} {new.url}"


@pytest.fixture
def service(services: Processes, both: str) -> ServiceProcess:
    services.registry = both
    return services.start("echo:Echo").ready()


@pytest.fixture
def stranger(services: Processes, old: Server, service: ServiceProcess) -> ServiceProcess:
    """Another instance, registered in the old one only."""
    services.registry = old.url
    return services.start("echo:Echo").ready()


@pytest.fixture
async def load(both: str, service: ServiceProcess) -> AsyncIterator[Load]:
    """Calls all the time; the test ends with none failed."""
    async with Mesh(both) as mesh:
        client = mesh.http("echo")

        async def call() -> str:
            return str((await client.get("/who")).raise_for_status().json()["pid"])

        await client.get("/who")
        async with Load(call, rate=50) as load:
            yield load
        assert load.errors == []


@contextlib.contextmanager
def hung(server: Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


def passing(consul: Consul) -> list[str]:
    entries = consul.get("/v1/health/service/echo?passing")
    return [entry["Service"]["ID"] for entry in entries]


async def has(server: Server, *services: ServiceProcess, within: float = 30) -> None:
    """Wait until the server itself lists exactly these as up."""
    async with open_registry(server.url) as registry:

        async def listed() -> bool:
            with contextlib.suppress(RegistryError):  # it may just be starting
                return lists(*services)(await registry.instances("echo"))
            return False

        await aeventually(listed, within=within, every=0.2)


async def says(service: ServiceProcess, text: str) -> None:
    async def said() -> bool:
        return text in service.output

    await aeventually(said, within=30)


def lists(*services: ServiceProcess, stale: bool = False) -> Callable[[Snapshot], bool]:
    wanted = sorted(each.instance for each in services)
    return lambda each: [one.id for one in each.up] == wanted and each.stale is stale


async def test_killed_and_restarted_empty(
    old: Server, new: Consul, both: str, service: ServiceProcess, stranger: ServiceProcess
) -> None:
    await has(old, service, stranger)
    await has(new, service)
    async with (
        open_registry(both) as registry,
        Watched(registry.watch("echo"), patience=30) as watched,
    ):
        await watched.until(lists(service, stranger))
        old.kill()
        await watched.until(lists(service, stranger, stale=True))
        new.put("/v1/agent/service/register", {"ID": "another", "Name": "echo"})
        await watched.until(lambda each: len(each.up) == 3)  # the other goes on live
        new.put("/v1/agent/service/deregister/another")
        await says(service, "one of several registries, fails")
        await asyncio.to_thread(old.start)
        await has(old, service, stranger)
        await watched.until(lists(service, stranger))
        assert passing(new) == [service.instance]
    await says(service, "works again")
    assert service.output.count("one of several registries, fails") == 1
    assert service.output.count("works again") == 1


async def test_calls_go_on_while_one_is_killed_and_comes_back_empty(
    old: Server, new: Consul, service: ServiceProcess, stranger: ServiceProcess, load: Load
) -> None:
    await load.answered_by(2)
    old.kill()
    await asyncio.sleep(2)
    await asyncio.to_thread(old.start)
    await has(old, service, stranger)
    await has(new, service)
    await asyncio.sleep(1)


@pytest.mark.slow
async def test_a_hung_one_costs_the_other_no_lease_and_no_call(
    old: Server, new: Consul, service: ServiceProcess, load: Load
) -> None:
    await has(new, service)
    with hung(old):
        for _ in range(round(2 * TTL)):
            await asyncio.sleep(1)
            assert await asyncio.to_thread(passing, new) == [service.instance]
    await has(old, service)
    assert passing(new) == [service.instance]


async def test_a_start_while_one_hangs(
    old: Server, new: Consul, both: str, services: Processes
) -> None:
    services.registry = both
    with hung(old):
        service = services.start("echo:Echo")
        await asyncio.to_thread(service.ready)
        await has(new, service)
        async with Mesh(both) as mesh:
            answer = await mesh.http("echo").get("/who")
            assert answer.json()["pid"] == service.pid
    await has(old, service)


async def test_a_start_while_one_is_down(
    old: Server, new: Consul, both: str, services: Processes
) -> None:
    old.kill()
    services.registry = both
    service = services.start("echo:Echo")
    await asyncio.to_thread(service.ready)
    async with Mesh(both) as mesh:
        assert (await mesh.http("echo").get("/who")).json()["pid"] == service.pid
        snapshot = mesh.target("echo").subscription.snapshot
        assert snapshot
        assert snapshot.stale
        await asyncio.to_thread(old.start)
        await has(old, service)


async def test_who_stops_while_one_is_down_is_gone_at_once(
    old: Server, new: Consul, both: str, service: ServiceProcess, services: Processes
) -> None:
    services.registry = both
    leaving = services.start("echo:Echo").ready()
    await has(old, service, leaving)
    await has(new, service, leaving)
    async with Mesh(both) as mesh:
        target = mesh.target("echo")
        await target.subscription.known()
        old.kill()

        async def listed(*wanted: ServiceProcess) -> bool:
            snapshot = target.subscription.snapshot
            return snapshot is not None and lists(*wanted, stale=True)(snapshot)

        await aeventually(lambda: listed(service, leaving), within=30)
        leaving.send(signal.SIGTERM)
        await aeventually(lambda: listed(service), within=5)
        assert await asyncio.to_thread(leaving.wait) == 0


async def test_a_stop_leaves_the_living_one_at_once(
    old: Server, new: Consul, service: ServiceProcess
) -> None:
    await has(new, service)
    with hung(old):
        service.send(signal.SIGTERM)
        await has(new)
        assert await asyncio.to_thread(service.wait) == 0
    assert "could not deregister" in service.output
