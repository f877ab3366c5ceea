"""200 calls a second over three real instances, while one of them goes."""

import asyncio
import signal

from meshkit import Mesh
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.support.load import Load
from tests.support.processes import Processes

RATE = 200


async def test_sigterm_fails_no_call(any_services: Processes) -> None:
    leaving, *staying = any_services.start_all("echo:Echo", 3)
    async with Mesh(any_services.registry) as mesh:
        client = mesh.http("echo")

        async def call() -> str:
            return str((await client.post("/count")).raise_for_status().json()["pid"])

        async with Load(call, rate=RATE) as load:
            await load.answered_by(3)
            leaving.send(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
            await asyncio.sleep(1)
        assert load.errors == []
        assert sum(load.answers.values()) == load.calls > RATE
        assert load.answers.keys() == {str(each.pid) for each in (leaving, *staying)}


async def test_kill_fails_no_idempotent_call(any_services: Processes) -> None:
    killed, *staying = any_services.start_all("echo:Echo", 3)
    async with Mesh(any_services.registry) as mesh:
        client = mesh.http("echo")

        async def call() -> str:
            return str((await client.get("/slow?seconds=0.02")).raise_for_status().json()["pid"])

        async with Load(call, rate=RATE) as load:
            await load.answered_by(3)
            killed.send(signal.SIGKILL)
            await asyncio.sleep(2)
        assert load.errors == []
        assert client.stats.retried >= 1
        assert load.answers.keys() == {str(each.pid) for each in (killed, *staying)}


async def test_a_rolling_restart_fails_no_call(any_services: Processes) -> None:
    running = any_services.start_all("echo:Echo", 2)
    async with Mesh(any_services.registry) as mesh:
        client = mesh.http("echo")

        async def call() -> str:
            return str((await client.post("/count")).raise_for_status().json()["pid"])

        async with Load(call, rate=RATE / 4) as load:
            await load.answered_by(2)
            for old in running:
                await asyncio.to_thread(any_services.start("echo:Echo").ready)
                old.send(signal.SIGTERM)
                assert await asyncio.to_thread(old.wait) == 0
            await load.answered_by(4)
        assert load.errors == []


async def test_sigterm_fails_no_grpc_call(any_services: Processes) -> None:
    leaving, *staying = any_services.start_all("echo_rpc:EchoRpc", 3)
    async with Mesh(any_services.registry) as mesh:
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc")

        async def call() -> str:
            return str((await stub.Say(echo_pb2.EchoRequest(text="x"))).instance)

        async with Load(call, rate=RATE) as load:
            await load.answered_by(3)
            leaving.send(signal.SIGTERM)
            assert await asyncio.to_thread(leaving.wait) == 0
            await asyncio.sleep(1)
        assert load.errors == []
        assert load.answers.keys() == {str(each.pid) for each in (leaving, *staying)}


async def test_kill_fails_no_idempotent_grpc_call(any_services: Processes) -> None:
    killed, *staying = any_services.start_all("echo_rpc:EchoRpc", 3)
    async with Mesh(any_services.registry) as mesh:
        stub = mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc")

        async def call() -> str:
            # Its proto says NO_SIDE_EFFECTS, which is how the client knows that it may repeat it.
            return str((await stub.Look(echo_pb2.EchoRequest(text="x"))).instance)

        async with Load(call, rate=RATE) as load:
            await load.answered_by(3)
            killed.send(signal.SIGKILL)
            await asyncio.sleep(2)
        assert load.errors == []
        assert load.answers.keys() == {str(each.pid) for each in (killed, *staying)}


async def test_http_and_grpc_are_one_instance(any_services: Processes) -> None:
    service = any_services.start("echo_rpc:EchoRpc").ready()
    async with Mesh(any_services.registry) as mesh:
        (instance,) = (await mesh.instances("echo-rpc")).up
        assert instance.endpoints.keys() == {"http", "grpc"}
        assert str(instance.endpoints["grpc"]) == service.facts["grpc"]
        reply = await mesh.grpc(echo_pb2_grpc.EchoStub, "echo-rpc").Say(echo_pb2.EchoRequest())
        answer = await mesh.http("echo-rpc").get("/who")
        assert reply.instance == str(answer.json()["pid"]) == str(service.pid)
