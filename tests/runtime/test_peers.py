"""What breaks in hand-written registration and in other packages, and must not break here.

Each test is one observation of a service that registers in its ASGI lifespan, made against real
processes on the embedded registry and on a real Consul.
"""

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import Callable

import pytest

from meshkit import Mesh, Snapshot
from tests.servers import Consul
from tests.support.processes import Processes
from tests.support.waiting import aeventually, eventually


async def snapshot(mesh: Mesh) -> Snapshot:
    return await mesh.instances("echo")


async def until_up(mesh: Mesh, count: int, *, within: float = 15) -> None:
    async def up() -> bool:
        return len((await snapshot(mesh)).up) == count

    await aeventually(up, within=within)


async def test_1_callable_as_soon_as_it_is_up(any_services: Processes) -> None:
    service = any_services.start("echo:Echo").ready()
    async with Mesh(any_services.registry) as mesh:
        assert [each.id for each in (await snapshot(mesh)).up] == [service.instance]
        answer = await mesh.http("echo").get("/who")
        assert answer.json() == {"pid": service.pid}


async def test_2_it_leaves_the_registry_before_it_drains(any_services: Processes) -> None:
    service = any_services.start("echo:Echo").ready()
    async with Mesh(any_services.registry) as mesh:
        slow = asyncio.create_task(mesh.http("echo").get("/slow", params={"seconds": 4}))
        await asyncio.sleep(0.3)
        service.send(signal.SIGTERM)
        began = time.monotonic()
        await until_up(mesh, 0)
        assert not slow.done(), f"it left the registry only after {time.monotonic() - began:.1f} s"
        assert (await slow).status_code == 200
    assert service.wait() == 0


async def test_3_a_killed_instance_costs_no_call(any_services: Processes) -> None:
    first, second = any_services.start_all("echo:Echo", 2)
    async with Mesh(any_services.registry) as mesh:
        client = mesh.http("echo")
        assert (await client.get("/who")).status_code == 200
        first.send(signal.SIGKILL)
        answers = [(await client.get("/who")).json()["pid"] for _ in range(50)]
        assert set(answers) == {second.pid}
        # The published time to forget: 1 s on the embedded registry, 20 s on Consul.
        await until_up(mesh, 1, within=1 if any_services.registry == "local://" else 20)


async def test_4_the_real_port_is_registered(any_services: Processes) -> None:
    service = any_services.start("echo:Echo", "--port", "0").ready()
    async with Mesh(any_services.registry) as mesh:
        (instance,) = (await snapshot(mesh)).up
    assert service.url == f"http://{instance.endpoints['http']}"
    with urllib.request.urlopen(f"{service.url}/who", timeout=5) as answer:
        assert answer.status == 200


@pytest.mark.consul
async def test_5_a_registry_that_is_down_at_start(
    make_consul: Callable[..., Consul], services: Processes
) -> None:
    agent = make_consul()
    agent.kill()
    services.registry = agent.url
    service = services.start("echo:Echo").ready()
    with urllib.request.urlopen(f"{service.url}/who", timeout=5) as answer:
        assert answer.status == 200
    await asyncio.sleep(3)
    warnings = [line for line in service.lines if '"level": "warning"' in line]
    assert len(warnings) == 1, service.output
    assert "can't register with consul://" in warnings[0]
    assert "Traceback" not in service.output
    agent.start()
    async with Mesh(agent.url) as mesh:
        await until_up(mesh, 1, within=10)


@pytest.mark.consul
async def test_6_a_registry_that_is_restarted_empty(
    make_consul: Callable[..., Consul], services: Processes
) -> None:
    agent = make_consul()
    services.registry = agent.url
    service = services.start("echo:Echo").ready()
    agent.restart()
    began = time.monotonic()

    def listed() -> bool:
        return bool(agent.get("/v1/health/service/echo?passing"))

    eventually(listed, within=5)
    assert time.monotonic() - began < 5
    with urllib.request.urlopen(f"{service.url}/who", timeout=5) as answer:
        assert answer.status == 200


async def test_7_every_process_is_an_instance_of_its_own(any_services: Processes) -> None:
    parent = any_services.start("echo:Echo", "--instances", "2")
    eventually(lambda: len(parent.all_facts) == 2, within=30)
    async with Mesh(any_services.registry, balancer="round_robin") as mesh:
        await until_up(mesh, 2)
        up = (await snapshot(mesh)).up
        assert len({str(each.endpoints["http"]) for each in up}) == 2
        pids = {(await mesh.http("echo").get("/who")).json()["pid"] for _ in range(10)}
    assert pids == {facts["pid"] for facts in parent.all_facts}
    parent.send(signal.SIGTERM)
    assert parent.wait() == 0


async def test_8_a_plain_app_joins_in_two_lines(any_services: Processes) -> None:
    service = any_services.start("plain:service").ready()
    async with Mesh(any_services.registry) as mesh:
        answer = await mesh.http("plain").get("/who")
        assert answer.json() == {"pid": service.pid}


async def test_9_callers_respect_health(any_services: Processes) -> None:
    up = any_services.start_all("echo:Echo", 3)
    async with Mesh(any_services.registry, balancer="round_robin") as mesh:
        client = mesh.http("echo")
        await client.get("/who")
        up[0].send(signal.SIGKILL)
        await until_up(mesh, 2, within=20)
        picked = [(await client.get("/who")).json()["pid"] for _ in range(300)]
        assert set(picked) == {up[1].pid, up[2].pid}
        assert client.stats.retried <= 1
    async with Mesh(any_services.registry, balancer="round_robin") as fresh:
        client = fresh.http("echo")
        picked = [(await client.get("/who")).json()["pid"] for _ in range(300)]
        assert set(picked) == {up[1].pid, up[2].pid}
        assert client.stats.retried == 0


async def test_a_blocked_service_is_down_and_comes_back_registered_once(
    any_services: Processes,
) -> None:
    env = {"MESHKIT_LOOP_LAG_LIMIT": "1"}
    service = any_services.start("echo:Echo", env=env).ready()
    async with Mesh(any_services.registry, timeout=30) as mesh:
        blocked = asyncio.create_task(mesh.http("echo").get("/block", params={"seconds": 5}))
        await until_up(mesh, 0, within=10)
        listed = (await snapshot(mesh)).instances
        assert [each.id for each in listed] == [service.instance]
        await until_up(mesh, 1)
        assert [each.id for each in (await snapshot(mesh)).instances] == [service.instance]
        assert (await blocked).status_code == 200


async def test_a_second_signal_ends_at_once(services: Processes) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        service = services.start("echo:Echo", env={"MESHKIT_DRAIN_DELAY": "60"}).ready()
        service.send(number)
        await asyncio.sleep(0.5)
        assert service.code is None
        service.send(number)
        code = await asyncio.to_thread(service.wait, 10)
        assert code == 128 + number


async def test_a_signal_that_is_sent_twice_at_once_counts_once(services: Processes) -> None:
    """As by timeout(1), which signals its child and then the whole group."""
    service = services.start("echo:Echo").ready()
    service.send(signal.SIGTERM)
    service.send(signal.SIGTERM)
    assert await asyncio.to_thread(service.wait, 20) == 0
    async with Mesh("local://") as mesh:
        assert (await snapshot(mesh)).instances == ()


async def test_a_process_forked_by_a_handler_does_not_keep_the_instance_alive(
    services: Processes,
) -> None:
    service = services.start("forker:Forker").ready()
    async with Mesh("local://") as mesh:
        child = (await mesh.http("forker").post("/fork")).json()["child"]
        try:
            service.send(signal.SIGKILL)

            async def gone() -> bool:
                return not (await mesh.instances("forker")).up

            await aeventually(gone, within=2)
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_stuck_event_loop_hears_the_second_signal(services: Processes) -> None:
    service = services.start("echo:Echo").ready()
    async with Mesh("local://") as mesh:
        blocked = asyncio.create_task(mesh.http("echo").get("/block", params={"seconds": 60}))
        await asyncio.sleep(0.5)
        service.send(signal.SIGTERM)
        await asyncio.sleep(0.5)
        assert service.code is None
        service.send(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait, 10) == 128 + signal.SIGTERM
        await asyncio.gather(blocked, return_exceptions=True)


async def test_a_stuck_process_ends_at_the_shutdown_limit(services: Processes) -> None:
    service = services.start("echo:Echo", env={"MESHKIT_SHUTDOWN_TIMEOUT": "2"}).ready()
    async with Mesh("local://") as mesh:
        blocked = asyncio.create_task(mesh.http("echo").get("/block", params={"seconds": 60}))
        await asyncio.sleep(0.5)
        service.send(signal.SIGTERM)
        assert await asyncio.to_thread(service.wait, 20) == 128 + signal.SIGTERM
        assert "not ended 3 s after the signal" in service.output
        await asyncio.gather(blocked, return_exceptions=True)


async def test_forked_instances_end_with_their_parent(services: Processes) -> None:
    parent = services.start("echo:Echo", "--instances", "2")
    eventually(lambda: len(parent.all_facts) == 2, within=30)
    pids = [facts["pid"] for facts in parent.all_facts]
    parent.send(signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in pids))
    async with Mesh("local://") as mesh:
        assert (await snapshot(mesh)).instances == ()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
