"""Real servers that fail, hang or lag are set aside, and come back when they are well again."""

import asyncio
import contextlib
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from meshkit import CallError, EjectionPolicy, HttpClient, Mesh, identity
from meshkit.discovery.ejection import Reason
from meshkit.model import Endpoint, Instance
from meshkit.registry import open_registry
from tests.client.grpc_servers import describe, plain_serving, server_processes, serving
from tests.client.http_servers import http_answer, raw_server, read_request
from tests.protos import echo_pb2, echo_pb2_grpc
from tests.support.waiting import aeventually

QUICK = EjectionPolicy(pause=0.2, interval=0.5, volume=5)


class Behaving:
    """A server of meshkit's kind that behaves as it is told.

    Attributes:
        status: of its answers; its health says nothing of it.
        delay: seconds before each of them.
        awake: cleared, it hangs: it reads, and answers nothing, its health neither.
    """

    def __init__(self, name: str, *, named: bool = True) -> None:
        self.name = name
        self.named = named
        self.status = 200
        self.delay = 0.0
        self.awake = asyncio.Event()
        self.awake.set()
        self.calls: Counter[str] = Counter()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            probe = request.target == "/health/ready"
            self.calls["PROBE" if probe else request.method] += 1
            await self.awake.wait()
            if not probe:
                await asyncio.sleep(self.delay)
            name = ((identity.INSTANCE, self.name),) if self.named else ()
            writer.write(http_answer(200 if probe else self.status, self.name.encode(), *name))
            await writer.drain()

    def instance(self, endpoint: Endpoint) -> Instance:
        return Instance(
            id=self.name,
            service="users",
            metadata={identity.MARK: "0"} if self.named else {},
            endpoints={"http": endpoint},
        )


@contextlib.asynccontextmanager
async def fleet(
    *servers: Behaving, ejection: EjectionPolicy = QUICK, timeout: float = 5.0
) -> AsyncIterator[tuple[Mesh, HttpClient]]:
    async with contextlib.AsyncExitStack() as stack:
        registry = open_registry(f"memory://{uuid.uuid4()}")
        mesh = await stack.enter_async_context(Mesh(registry, ejection=ejection))
        for server in servers:
            endpoint = await stack.enter_async_context(raw_server(server))
            await registry.register(server.instance(endpoint))
        # In turns, so that it is not the balancer that keeps away from them.
        yield mesh, mesh.http("users", timeout=timeout, balancer="round_robin", slow_start=0)


def aside(client: HttpClient) -> dict[str, Reason]:
    target = client._plain._target
    return {each.instance_id: each.reason for each in target.ejections.describe()}


async def until(
    client: HttpClient, wanted: dict[str, Reason], call: Callable[[], Awaitable[object]]
) -> None:
    """Call on, some at a time, until exactly these are aside."""

    async def so() -> bool:
        await asyncio.gather(*(call() for _ in range(8)), return_exceptions=True)
        return aside(client) == wanted

    await aeventually(so, within=30)


async def test_one_that_answers_with_errors_is_set_aside_and_comes_back() -> None:
    good, bad, third = Behaving("users-a"), Behaving("users-b"), Behaving("users-c")
    async with fleet(good, bad, third) as (_, client):

        async def call() -> None:
            await client.post("/", json={})

        bad.status = 500
        await until(client, {"users-b": Reason.FAILURES}, call)
        bad.calls.clear()
        good.calls.clear()
        for _ in range(100):
            await call()
            await asyncio.sleep(0.01)
        assert good.calls["POST"] >= 40
        assert bad.calls["POST"] <= bad.calls["PROBE"] <= 5  # its health is good: one call each
        assert "users-b" in aside(client)
        bad.status = 200
        await until(client, {}, call)
        bad.calls.clear()
        for _ in range(30):
            await call()
        assert bad.calls == {"POST": 10}


async def test_no_call_goes_to_one_that_hangs_until_its_health_answers() -> None:
    well, hung = Behaving("users-a"), Behaving("users-b")
    async with fleet(well, hung, timeout=0.3) as (_, client):

        async def call() -> None:
            await client.post("/", json={})

        hung.awake.clear()
        await until(client, {"users-b": Reason.FAILURES}, call)
        hung.calls.clear()

        async def probed() -> bool:
            await call()
            return hung.calls["PROBE"] >= 2

        await aeventually(probed, within=30)
        assert hung.calls["POST"] == 0
        hung.awake.set()
        await until(client, {}, call)


async def test_one_that_is_slow_is_set_aside_and_comes_back() -> None:
    servers = [Behaving(f"users-{letter}") for letter in "abc"]
    for each in servers:
        each.delay = 0.02
    servers[1].delay = 0.4
    async with fleet(*servers) as (_, client):

        async def call() -> None:
            await client.get("/")

        await until(client, {"users-b": Reason.LATENCY}, call)
        servers[1].calls.clear()
        servers[0].calls.clear()
        for _ in range(50):
            await call()
        assert servers[0].calls["GET"] >= 20
        assert servers[1].calls["GET"] <= 3
        servers[1].delay = 0.02
        await until(client, {}, call)


async def test_strangers_are_tried_without_being_asked_for_their_health() -> None:
    well, bad = Behaving("users-a", named=False), Behaving("users-b", named=False)
    async with fleet(well, bad) as (_, client):

        async def call() -> None:
            await client.get("/")

        bad.status = 500
        await until(client, {"users-b": Reason.FAILURES}, call)
        bad.status = 200
        await until(client, {}, call)
        assert bad.calls["PROBE"] == 0


async def test_when_all_fail_all_are_called() -> None:
    servers = [Behaving(f"users-{letter}") for letter in "abc"]
    async with fleet(*servers) as (_, client):

        async def call() -> None:
            await client.post("/", json={})

        for each in servers:
            each.status = 500
        await until(client, {each.name: Reason.FAILURES for each in servers}, call)
        for each in servers:
            each.calls.clear()
        for _ in range(30):
            await call()
        assert all(each.calls["POST"] >= 5 for each in servers)
        for each in servers:
            each.status = 200
        await until(client, {}, call)


async def test_a_client_may_have_a_policy_of_its_own() -> None:
    well, bad = Behaving("users-a"), Behaving("users-b")
    async with fleet(well, bad) as (mesh, client):
        never = EjectionPolicy(failures=0, deviations=0, slowness=0)
        other = mesh.http("users", ejection=never, balancer="round_robin", slow_start=0)
        bad.status = 500
        for _ in range(20):
            await client.post("/", json={})
            await other.post("/", json={})
        assert aside(client) == {"users-b": Reason.FAILURES}
        assert aside(other) == {}


async def test_a_grpc_instance_that_hangs_is_asked_for_its_health() -> None:
    """A stopped process accepts connections, so that only an answer tells."""
    with server_processes("echo-a", "echo-b") as (well, hung):
        registry = open_registry(f"memory://{uuid.uuid4()}")
        for each in (well, hung):
            await registry.register(each.instance)
        async with Mesh(registry, ejection=QUICK) as mesh:
            stub = mesh.grpc(echo_pb2_grpc.EchoStub, "echo", balancer="round_robin", slow_start=0)
            target = mesh.target("echo", balancer="round_robin", slow_start=0)

            async def so(count: int) -> None:
                async def found() -> bool:
                    calls = (stub.Say(echo_pb2.EchoRequest(text="x"), timeout=1) for _ in range(4))
                    await asyncio.gather(*map(finish, calls))
                    return len(target.ejections.describe()) == count

                await aeventually(found, within=60)

            async def finish(call: Awaitable[object]) -> None:
                with contextlib.suppress(CallError):
                    await call

            await so(0)
            hung.send(signal.SIGSTOP)
            await so(1)
            hung.send(signal.SIGCONT)
            await so(0)
            assert target.ejections.ejected.total() >= 1


async def test_the_grpc_health_service_is_asked() -> None:
    from meshkit.client.grpc import ChannelPool
    from meshkit.client.grpc.probe import grpc_probe

    pool = ChannelPool()
    probe = grpc_probe(pool)
    async with serving("echo-a") as ours, plain_serving("echo-b") as strange:
        there = ours.instance.endpoints["grpc"]
        assert await probe(ours.instance, there)
        await ours.server.show(ready=False)
        assert not await probe(ours.instance, there)
        await ours.server.show(ready=True)
        assert not await probe(describe("echo-x", there), there)  # it is somebody else
        assert await probe(strange.instance, strange.instance.endpoints["grpc"])
        nowhere = Endpoint("127.0.0.1", 9)
        assert not await probe(describe("echo-c", nowhere, named=False), nowhere)
    await pool.close()


@pytest.mark.parametrize("status", [503, 404])
async def test_the_readiness_of_our_own_is_asked(status: int) -> None:
    from meshkit.client.http1 import Http1Transport
    from meshkit.client.probe import http_probe

    transport = Http1Transport()
    probe = http_probe(transport)
    name = (identity.INSTANCE, "users-a")
    answers = [http_answer(status, b"", name), http_answer(200), http_answer(200, b"", name)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            assert request.header(identity.TARGET) == "users-a"
            writer.write(answers.pop(0))
            await writer.drain()

    async with raw_server(serve) as endpoint:
        instance = Behaving("users-a").instance(endpoint)
        assert [await probe(instance, endpoint) for _ in range(3)] == [False, False, True]
    await transport.aclose()
