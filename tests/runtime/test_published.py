"""What Docker tells of the host and the published ports, by an engine that says what we want."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meshkit.errors import ConfigError
from meshkit.model import Endpoint
from meshkit.registry import open_registry
from meshkit.runtime.advertise import Advertised, advertised
from meshkit.runtime.container import possible_ids
from meshkit.settings import MeshSettings
from tests.docker.fake_engine import FakeEngine, answer

ID = "0123456789abcdef" * 4
MOUNTS = f"""\
198 150 0:58 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/X
214 198 254:0 /volumes/{"f" * 64}/hosts /data rw,relatime - ext4 /dev/vda rw
215 198 254:0 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw
216 198 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw
"""
REGISTRY = "consul://172.18.0.9:8500"
REMOTE = "consul://198.51.100.1:8500"  # TEST-NET-2, RFC 5737: nothing is sent there


def binding(host: str, port: int) -> dict[str, str]:
    return {"HostIp": host, "HostPort": str(port)}


ANY = [binding("0.0.0.0", 32768), binding("::", 32999)]


def container(ports: dict[str, Any] | None = None, *, mode: str = "shop") -> dict[str, Any]:
    network = {"IPAddress": "172.18.0.3", "IPPrefixLen": 16, "Gateway": "172.18.0.1"}
    unplugged = {"IPAddress": "", "IPPrefixLen": 0, "Gateway": ""}
    return {
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Ports": ports, "Networks": {"none": unplugged, "shop": network}},
    }


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    """What DOCKER_HOST names; it says that we are in its container."""
    engine = FakeEngine()
    engine.answers["/v1.41/info"] = answer({"Swarm": {"NodeAddr": ""}})
    listener = await asyncio.start_unix_server(engine.serve, tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr("meshkit.runtime.container.MOUNTS", tmp_path / "mountinfo")
    yield engine
    listener.close()


def tell(engine: FakeEngine, ports: dict[str, Any] | None, *, mode: str = "shop") -> None:
    engine.answers[f"/v1.41/containers/{ID}/json"] = answer(container(ports, mode=mode))


async def choose(registry: str = REGISTRY, **settings: Any) -> Advertised:
    given = MeshSettings(
        **{"advertise": "docker", "host": "0.0.0.0", "port": 8000, "grpc_port": 9000, **settings}
    )
    async with open_registry(registry) as opened:
        return await advertised(given, {"http": given.port, "grpc": given.grpc_port}, opened)


BOTH = {"8000/tcp": ANY, "9000/tcp": [binding("0.0.0.0", 32769)], "9999/tcp": None}


async def test_the_gateway_is_the_host_where_the_registry_is_beside_us(engine: FakeEngine) -> None:
    tell(engine, BOTH)
    chosen = await choose()
    assert (chosen.host, dict(chosen.ports)) == ("172.18.0.1", {"http": 32768, "grpc": 32769})
    assert chosen.rule == "published by Docker, the gateway to the host"
    assert "only this host and its containers can call it" in chosen.caution
    assert "MESHKIT_SELF_PROBE=warn" in chosen.advice
    assert (await choose("memory://")).host == "172.18.0.1"


async def test_the_host_of_a_remote_registry_has_to_be_named(engine: FakeEngine) -> None:
    tell(engine, BOTH)
    with pytest.raises(ConfigError, match=r"does not tell the host's address .* --advertise-host"):
        await choose(REMOTE)
    chosen = await choose(REMOTE, advertise_host="10.0.0.5")
    assert (chosen.host, chosen.caution) == ("10.0.0.5", "")
    assert dict(chosen.ports) == {"http": 32768, "grpc": 32769}


async def test_a_node_of_a_swarm_knows_its_address(engine: FakeEngine) -> None:
    tell(engine, BOTH)
    engine.answers["/v1.41/info"] = answer({"Swarm": {"NodeAddr": "10.0.0.6"}})
    chosen = await choose(REMOTE)
    assert (chosen.host, chosen.caution) == ("10.0.0.6", "")
    assert chosen.rule == "published by Docker, the host's address in the Swarm"


async def test_ports_that_are_published_on_one_address(engine: FakeEngine) -> None:
    tell(engine, {"8000/tcp": [binding("10.0.0.7", 80)], "9000/tcp": ANY})
    chosen = await choose(REMOTE)
    assert (chosen.host, chosen.ports["http"]) == ("10.0.0.7", 80)
    tell(engine, {"8000/tcp": [binding("127.0.0.1", 80)], "9000/tcp": ANY})
    with pytest.raises(
        ConfigError, match=r"127.0.0.1 \(published by Docker on this address\) can't"
    ):
        await choose(REMOTE)


async def test_the_host_may_be_in_docker_host(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    endpoint = Endpoint("docker.example", listener.sockets[0].getsockname()[1])
    monkeypatch.setenv("DOCKER_HOST", f"tcp://{endpoint}")
    connect = asyncio.open_connection
    monkeypatch.setattr(
        asyncio, "open_connection", lambda host, port, **_: connect("127.0.0.1", port)
    )
    tell(engine, BOTH)
    chosen = await choose(REMOTE)
    assert (chosen.host, chosen.rule) == (
        endpoint.host,
        "published by Docker, the host is DOCKER_HOST",
    )
    listener.close()


async def test_ipv6_may_have_another_port(engine: FakeEngine) -> None:
    tell(engine, BOTH)
    chosen = await choose(REMOTE, advertise_host="fd00::5")
    assert dict(chosen.ports) == {"http": 32999, "grpc": 32769}


async def test_ports_that_are_set_need_not_be_published(engine: FakeEngine) -> None:
    tell(engine, {"8000/tcp": ANY})
    chosen = await choose(advertise_grpc_port=443)
    assert dict(chosen.ports) == {"http": 32768, "grpc": 443}


async def test_the_hosts_own_network_publishes_nothing(engine: FakeEngine) -> None:
    tell(engine, {}, mode="host")
    chosen = await choose("memory://", port=0, advertise_host="10.0.0.8")
    assert (chosen.host, chosen.rule, dict(chosen.ports)) == ("10.0.0.8", "set explicitly", {})


@pytest.mark.parametrize(
    ("ports", "settings", "message"),
    [
        ({"8000/tcp": ANY}, {}, r"port 9000 \(grpc\) of this container is not published"),
        (
            {"9000/tcp": ANY},
            {},
            r"port 8000 \(http\) .*\(published: 9000/tcp\): start it with d",
        ),
        (None, {}, r"port 8000 \(http\) .*\(published: none\)"),
        (BOTH, {"port": 0}, "a free port for http is not known before the start.* with --port,"),
        (BOTH, {"grpc_port": 0}, "a free port for grpc .* with --grpc-port, and publish that"),
        (BOTH, {"host": "127.0.0.1"}, "--host 127.0.0.1 can't be reached through a published port"),
        (BOTH, {"advertise_host": "10.0.0.0/8"}, "--advertise-host 10.0.0.0/8 is a network"),
    ],
)
async def test_what_docker_does_not_publish(
    engine: FakeEngine, ports: dict[str, Any] | None, settings: dict[str, Any], message: str
) -> None:
    tell(engine, ports)
    with pytest.raises(ConfigError, match=message):
        await choose(**settings)


async def test_a_process_in_no_container(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.answers[f"/v1.41/containers/{ID}/json"] = answer({"message": "No"}, "404 Not Found")
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    with pytest.raises(ConfigError, match=r"in no container of Docker at .*docker\.sock; mount"):
        await choose()
    assert f"/v1.41/containers/{ID}/json" in engine.asked
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / "mountinfo").unlink()
    with pytest.raises(ConfigError, match=r"in no container of Docker at .*docker\.sock; mount"):
        await choose()


def test_ids_are_told_by_mounts_and_the_hostname() -> None:
    assert possible_ids(MOUNTS, "users") == [ID]
    assert possible_ids("", "0123456789ab") == ["0123456789ab"]
    assert possible_ids(MOUNTS, "0123456789ab") == [ID, "0123456789ab"]
    assert possible_ids("", "users") == []
