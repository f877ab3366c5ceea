"""Real services, HTTP and gRPC, on etcd: found, drained, killed, and while etcd is away."""

import asyncio
import json
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshkit import Mesh
from meshkit.registry import open_registry
from meshkit.testing.registry_fixtures import has
from meshkit.testing.watched import Watched
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.servers.etcd import Etcd
from tests.servers.fixtures import MakeEtcd
from tests.support.processes import Processes, ServiceProcess, processes
from tests.support.rivals import rivals_do_not_fight
from tests.support.waiting import aeventually

pytestmark = pytest.mark.etcd

APPS = Path(__file__).parents[1] / "support" / "apps"


@pytest.fixture
def services(etcd: Etcd) -> Iterator[Processes]:
    with processes(APPS, f"{etcd.url}/test-{secrets.token_hex(4)}") as running:
        yield running


def complaints(services: Processes) -> list[str]:
    """What no user should meet: tracebacks, and lines of gRPC's own."""
    return [
        line
        for process in services.started
        for line in process.lines
        if "Traceback" in line or not line.startswith("{")
    ]


async def test_both_transports_are_found_and_leave_without_a_failed_call(
    services: Processes,
) -> None:
    """gRPC is used on two event loops of one process: the service's and its registration's."""
    started = services.start_all("echo_rpc:EchoRpc", 2)
    async with Mesh(services.registry, balancer="round_robin") as mesh:
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc")

        async def call() -> tuple[str, int]:
            answer = await stub.Say(echo_pb2.EchoRequest(text="hello"), timeout=10)
            who = await mesh.http("echo-rpc").get("/who")
            return answer.instance, who.json()["pid"]

        seen = [await call() for _ in range(40)]
        pids = {each.pid for each in started}
        assert {int(rpc) for rpc, _ in seen} == {http for _, http in seen} == pids
        started[0].send(signal.SIGTERM)
        while started[0].code is None:
            await call()
        assert started[0].wait() == 0
        assert {int((await call())[0]) for _ in range(10)} == {started[1].pid}
    started[1].send(signal.SIGTERM)
    assert await asyncio.to_thread(started[1].wait) == 0
    assert complaints(services) == []


@pytest.mark.slow
async def test_a_killed_service_is_gone_within_15_seconds(services: Processes) -> None:
    (one,) = services.start_all("echo:Echo", 1)
    async with (
        open_registry(services.registry) as registry,
        Watched(registry.watch("echo"), patience=15.0) as watched,
    ):
        assert (await watched.next()).up
        one.send(signal.SIGKILL)
        await watched.until(has())


@pytest.mark.slow
async def test_an_emptied_etcd_is_filled_again(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    with processes(APPS, etcd.url) as services:
        ids = {each.instance for each in services.start_all("echo:Echo", 2)}
        etcd.kill()
        etcd.empty()
        await asyncio.to_thread(etcd.start)

        async def filled() -> bool:
            stored = etcd.entries("/meshkit/services/echo/")
            return {json.loads(value)["id"] for value in stored.values()} == ids

        await aeventually(filled, within=20)
        for process in services.started:
            process.send(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait) == 0
        assert etcd.entries("/meshkit/") == {}
        assert complaints(services) == []


@pytest.mark.slow
async def test_a_hung_etcd_does_not_hold_up_the_end(make_etcd: MakeEtcd) -> None:
    etcd = make_etcd()
    with processes(APPS, etcd.url) as services:
        (one,) = services.start_all("echo:Echo", 1)
        etcd.pause()
        try:
            one.send(signal.SIGTERM)
            assert await asyncio.to_thread(one.wait, 15) == 0
        finally:
            etcd.resume()
        assert complaints(services) == []


@pytest.mark.slow
async def test_two_registrations_with_one_id_do_not_fight(
    etcd: Etcd, caplog: pytest.LogCaptureFixture
) -> None:
    await rivals_do_not_fight(f"{etcd.url}/test-{secrets.token_hex(4)}")
    warnings = [each for each in caplog.records if "can't register" in each.getMessage()]
    assert len(warnings) == 1


async def test_several_instances_from_one_command(services: Processes) -> None:
    """They are forked from a parent that has imported everything, gRPC too."""
    parent = services.start("echo_rpc:EchoRpc", "--instances", "2")
    await aeventually_ready(parent, 2)
    async with open_registry(services.registry) as registry:
        assert len((await registry.instances("echo-rpc")).up) == 2
        parent.send(signal.SIGTERM)
        assert await asyncio.to_thread(parent.wait) == 0
        assert (await registry.instances("echo-rpc")).instances == ()
    assert complaints(services) == []


async def aeventually_ready(process: ServiceProcess, count: int) -> None:
    async def ready() -> bool:
        assert process.code is None, process.output
        return len(process.all_facts) == count

    await aeventually(ready, within=30)
