"""What watches, goes on when its registry was restarted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from meshkit import Endpoint, Instance
from meshkit.registry import open_registry
from tests.cli.command import Command, running
from tests.servers.fixtures import MakeConsul, MakeEtcd, MakeZooKeeper
from tests.support.waiting import aeventually, eventually

USERS = Instance(id="users-1", service="users", endpoints={"http": Endpoint("127.0.0.1", 8000)})


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("consul", marks=pytest.mark.consul),
        pytest.param("etcd", marks=pytest.mark.etcd),
        pytest.param("zookeeper", marks=[pytest.mark.zookeeper, pytest.mark.slow]),
    ],
)
def test_a_watch_goes_on_over_a_restart(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    make: MakeConsul | MakeEtcd | MakeZooKeeper = request.getfixturevalue(f"make_{kind}")
    server = make()
    asyncio.run(written(server.url, b"1"))
    env = {"MESHKIT_REGISTRY": server.url}
    with (
        running("ps", "--watch", folder=tmp_path, env=env) as ps,
        running("config", "watch", folder=tmp_path, env=env) as config,
    ):
        eventually(lambda: "no instance is registered" in ps.out)
        eventually(lambda: config.out == "put users/size = 1\n")
        server.kill()
        for command in (ps, config):
            eventually(lambda: "waiting for it to come back" in command.err, within=30)  # noqa: B023
        server.start()
        for command in (ps, config):
            eventually(lambda: f"{server.url} is back" in command.err, within=60)  # noqa: B023
        asyncio.run(written(server.url, b"2"))
        asyncio.run(registered_until_seen(server.url, ps))
        eventually(lambda: config.out.endswith("put users/size = 2\n"))
        for command in (ps, config):
            assert command.process.poll() is None
            first, second = command.err.splitlines()
            assert first.startswith("meshkit: error: ")
            assert second == f"meshkit: {server.url} is back"
            assert command.stop(signal.SIGINT) == 0


async def written(url: str, value: bytes) -> None:
    async with open_registry(url) as registry:
        await registry.kv.put("config/users/size", value)


async def registered_until_seen(url: str, ps: Command) -> None:
    async def seen() -> bool:
        return USERS.id in ps.out

    async with open_registry(url) as registry:
        await registry.register(USERS)
        await aeventually(seen)


def test_what_never_was_there_is_not_waited_for(tmp_path: Path) -> None:
    env = {"MESHKIT_REGISTRY": "consul://127.0.0.1:1"}
    for arguments in (("ps", "--watch"), ("config", "watch")):
        with running(*arguments, folder=tmp_path, env=env) as command:
            assert command.process.wait(30) == 4
            assert command.err.count("\n") == 1
