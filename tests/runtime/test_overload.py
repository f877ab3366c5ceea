"""A service process that is offered three times what it can answer."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from pyreqwest.client import Client, ClientBuilder

from meshkit import Mesh
from meshkit.identity import SHED
from meshkit.propagation import DEADLINE
from tests.protos import echo_pb2_grpc
from tests.protos.echo_pb2 import EchoRequest
from tests.support.apps.busy import WORK
from tests.support.overload import Call, offer
from tests.support.processes import Processes, ServiceProcess
from tests.support.rounds import best_of
from tests.support.waiting import aeventually

SECONDS = 6
Transport = Callable[[ServiceProcess, str], contextlib.AbstractAsyncContextManager[Call]]

CAPACITY = 1 / WORK


@contextlib.asynccontextmanager
async def http(service: ServiceProcess, path: str) -> AsyncIterator[Call]:
    async with ClientBuilder().build() as client:
        yield lambda: get(client, service.url + path, service.instance)


async def get(client: Client, url: str, instance: str) -> str:
    answer = await client.get(url).timeout(timedelta(seconds=30)).build().send()
    if answer.status == 503:
        assert answer.headers["retry-after"] == "1"
        assert answer.headers[SHED] == instance
        return "shed"
    assert await answer.text() == '"done"'
    return "answered"


@contextlib.asynccontextmanager
async def rpc(service: ServiceProcess, path: str) -> AsyncIterator[Call]:
    async with grpc.aio.insecure_channel(str(service.facts["grpc"])) as channel:
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        yield lambda: say(stub, path.strip("/"), service.instance)


async def say(stub: Any, text: str, instance: str) -> str:
    metadata = ((DEADLINE, "30000"),)  # as meshkit's own clients tell it
    try:
        answer = await stub.Say(EchoRequest(text=text), timeout=30, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        shed = dict(error.trailing_metadata()).get(SHED) == instance
        return "shed" if shed else error.code().name
    assert answer.text == text
    return "answered"


async def handled(service: ServiceProcess) -> int:
    """How many calls the service worked on, once it has no more to do."""
    async with ClientBuilder().build() as client:
        before = -1
        while True:
            answer = await client.get(service.url + "/handled").build().send()
            if answer.status == 200 and before == (before := await answer.json()):
                return before
            await asyncio.sleep(0.5)


@pytest.mark.slow
@pytest.mark.parametrize("transport", [http, rpc])
@pytest.mark.parametrize("path", ["/compute", "/pool"])
async def test_at_three_times_its_capacity_a_service_goes_on_answering_in_time(
    services: Processes, transport: Transport, path: str
) -> None:
    await best_of(lambda: compared(services, transport, path))


async def compared(services: Processes, transport: Transport, path: str) -> dict[str, object]:
    """Return what speaks against shedding: the same load with it and without."""
    on = services.start("busy:Busy", env={"MESHKIT_SHEDDING": "auto"}).ready()
    async with transport(on, path) as call:
        usual = await offer(call, rate=CAPACITY / 10, seconds=2)
        during = await offer(call, rate=CAPACITY * 3, seconds=SECONDS)
        useful = during["answered"] / await handled(on)
        await asyncio.sleep(2)
        after = await offer(call, rate=CAPACITY / 10, seconds=2)
    on.close()

    off = services.start("busy:Busy", env={"MESHKIT_SHEDDING": "off"}).ready()
    async with transport(off, path) as call:
        await offer(call, rate=CAPACITY / 10, seconds=2)
        without = await offer(call, rate=CAPACITY * 3, seconds=SECONDS)
    off.close()
    assert without["shed"] == 0
    good = {
        "all are answered before": set(usual) == {"answered"},
        "what is worked on is wanted": useful > 0.6,
        "the rest is refused": during["shed"] > during["answered"] / 2,
        "all are answered after": set(after) == {"answered"},
        "more than without": without["answered"] < 0.7 * during["answered"],
    }
    seen = {"before": usual, "during": during, "useful": useful, "after": after, "off": without}
    wrong = [name for name, held in good.items() if not held]
    return {"not so": wrong, **seen} if wrong else {}


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_what_one_instance_sheds_another_one_answers(
    services: Processes, transport: str
) -> None:
    full = services.start("busy:Busy", env={"MESHKIT_MAX_CONCURRENCY": "1"}).ready()
    free = services.start("busy:Busy").ready()
    async with full_of_work(full), Mesh(services.registry) as mesh:
        answered: collections.Counter[str] = collections.Counter()
        for _ in range(100):
            answered[await who(mesh, transport)] += 1
    # Calls that may not be repeated: only what was surely not handled goes elsewhere.
    assert answered == {str(free.pid): 100}


async def who(mesh: Mesh, transport: str) -> str:
    if transport == "http":
        answer = await mesh.http("busy").post("/who")
        answer.raise_for_status()
        return str(answer.json())
    stub = mesh.grpc(echo_pb2_grpc.EchoStub, "busy")
    return str((await stub.Say(EchoRequest(text="who"))).instance)


@contextlib.asynccontextmanager
async def full_of_work(service: ServiceProcess) -> AsyncIterator[None]:
    """One call over each transport that does not end."""
    async with (
        ClientBuilder().build() as client,
        grpc.aio.insecure_channel(str(service.facts["grpc"])) as channel,
    ):
        stub: Any = echo_pb2_grpc.EchoStub(channel)  # type: ignore[no-untyped-call]
        held = stub.Say(EchoRequest(text="hold"), timeout=60)
        request = client.get(service.url + "/hold").timeout(timedelta(seconds=60)).build()
        holding = asyncio.create_task(request.send())

        async def full() -> bool:
            answer = await client.get(service.url + "/handled").build().send()
            call = stub.Say(EchoRequest(text="who"), timeout=60)
            return answer.status == 503 and await call.code() is not grpc.StatusCode.OK

        await aeventually(full)
        yield
        held.cancel()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
