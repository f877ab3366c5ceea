"""An agent that listens on a Unix socket."""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshkit.errors import RegistryUnavailable
from meshkit.model import Endpoint, Instance
from meshkit.registry import Registry, open_registry
from meshkit.runtime.advertise import advertised
from meshkit.settings import MeshSettings
from meshkit.testing.registry_fixtures import open_files
from meshkit.testing.watched import Watched
from tests.servers.fixtures import MakeConsul

USERS = Instance(id="users-1a2b", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


@pytest.fixture
def socket() -> Iterator[Path]:
    """A path short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="consul-") as folder:
        yield Path(folder) / "agent.sock"


async def whole_life(registry: Registry) -> None:
    async with Watched(registry.watch("users")) as watched:
        assert (await watched.next()).instances == ()
        lease = await registry.register(USERS)
        await watched.until(lambda snapshot: len(snapshot.up) == 1)
        await registry.renew(lease)
        await registry.register(dataclasses.replace(USERS, weight=3))
        await watched.until(lambda snapshot: snapshot.instances[0].weight == 3)
        await registry.deregister(USERS.id)
        await watched.until(lambda snapshot: not snapshot.instances)


@pytest.mark.consul
async def test_a_whole_life(
    make_consul: MakeConsul, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consul = make_consul(settings={"addresses": {"http": f"127.0.0.1 unix://{socket}"}})
    before = open_files()
    async with open_registry(f"consul+unix://{socket}") as registry:
        assert registry.url == f"consul+unix://{socket}"
        await whole_life(registry)
    assert open_files() <= before
    monkeypatch.setenv("CONSUL_HTTP_ADDR", f"unix://{socket}")
    async with open_registry("consul://") as registry:
        assert registry.url == f"consul+unix://{socket}"
        await whole_life(registry)
    consul.stop()
    async with open_registry("consul://") as registry:
        with pytest.raises(RegistryUnavailable, match=f"Consul at {socket} can't be reached: "):
            await registry.register(USERS)


async def test_no_socket_there(socket: Path) -> None:
    async with open_registry(f"consul+unix://{socket}") as registry:
        with pytest.raises(RegistryUnavailable) as caught:
            await registry.instances("users")
    assert str(caught.value) == f"Consul at {socket} can't be reached: No such file or directory"


async def test_the_advertised_address_is_chosen_as_for_an_agent_of_this_machine(
    socket: Path,
) -> None:
    async with open_registry(f"consul+unix://{socket}") as registry:
        chosen = await advertised(MeshSettings(host="127.0.0.1"), {}, registry)
    assert chosen.host == "127.0.0.1"
    assert "only this machine can call it" in chosen.caution
