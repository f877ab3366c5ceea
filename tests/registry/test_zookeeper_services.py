"""Services that are run on ``zookeeper://``."""

import signal
from collections.abc import Iterator

import pytest

from meshkit.registry import open_registry
from meshkit.testing.watched import Watched
from tests.conftest import APPS
from tests.registry.zookeeper_tree import fresh
from tests.servers import ZooKeeper
from tests.servers.fixtures import MakeZooKeeper
from tests.support.processes import Processes, processes
from tests.support.rivals import rivals_do_not_fight
from tests.support.waiting import eventually

pytestmark = [pytest.mark.zookeeper, pytest.mark.slow]


@pytest.fixture
def url(zookeeper: ZooKeeper) -> str:
    return fresh(zookeeper)


@pytest.fixture
def running(url: str) -> Iterator[Processes]:
    with processes(APPS, url) as running:
        yield running


async def test_registered_found_and_gone(url: str, running: Processes) -> None:
    async with open_registry(url) as registry, Watched(registry.watch("echo")) as watched:
        assert not (await watched.next()).instances
        service = running.start("echo:Echo").ready()
        (found,) = (await watched.until(lambda snapshot: len(snapshot.up) == 1)).instances
        assert found.id == service.instance
        service.send(signal.SIGTERM)
        await watched.until(lambda snapshot: not snapshot.instances)
        assert service.wait() == 0
        assert "Traceback" not in service.output


async def test_a_server_that_is_away_is_two_lines(make_zookeeper: MakeZooKeeper) -> None:
    """One when it went, one when it came back; then the service is registered again."""
    server = make_zookeeper()
    url = f"{server.url}?session=2"
    with processes(APPS, url) as running:
        service = running.start("echo:Echo").ready()
        before = len(service.lines)
        server.kill()
        server.empty()
        eventually(lambda: "can't register" in service.output, within=30)
        server.start()
        eventually(lambda: "again" in "".join(service.lines[before:]), within=30)
        async with open_registry(url) as registry, Watched(registry.watch("echo")) as watched:
            await watched.until(lambda snapshot: [e.id for e in snapshot.up] == [service.instance])
        warned = [line for line in service.lines[before:] if "warning" in line.lower()]
        assert len(warned) == 1
        assert "Traceback" not in service.output
        service.send(signal.SIGTERM)
        assert service.wait() == 0


async def test_two_with_one_id_do_not_fight(url: str, caplog: pytest.LogCaptureFixture) -> None:
    await rivals_do_not_fight(url)
    warnings = [each for each in caplog.records if "can't register" in each.getMessage()]
    assert len(warnings) == 1
