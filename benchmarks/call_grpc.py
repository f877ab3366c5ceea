"""A gRPC call by name over three instances, against grpc's own round_robin over the same three.

CPU: what this process spends on a call, all of its threads, with 1 and with 32 calls in flight;
grpc's side is one channel with a fixed list of the addresses and the load-balancing policy
``round_robin``. Both have a deadline; ours also balances by name, counts, ejects and may retry.
Change: an instance moves to another address while 8 calls at a time are made. What is timed is
from the call that registers the new address with the embedded registry until the first call
answered there; a call that fails ends the benchmark.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from measure import BenchmarkError, Result, alternate, compare, now
from processes import STUBS, Process, running
from wire import LIMIT

from meshkit import Endpoint, Instance, Mesh
from meshkit.registry import Registry, open_registry
from meshkit.registry.base import Lease

ROUNDS = 25
CALLS = 1500
IN_FLIGHT = (1, 32)
SERVICE = "users"
MOVING = "moving"
CALLERS = 8
GAP = 0.002
PAUSE = 0.2
TIMEOUT = 10.0
HOST = "127.0.0.1"


async def run(rounds: int) -> list[Result]:
    sys.path.insert(1, str(STUBS))
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(name)) for name in ("a", "b", "c")]
        endpoints = [await server_endpoint(each) for each in servers]
        async with calling(endpoints) as (mesh, ours), round_robin(endpoints) as theirs:
            results = [await cpu(ours, theirs, rounds, flight) for flight in IN_FLIGHT]
            return [*results, await changes(mesh, rounds, dict(zip("ab", endpoints, strict=False)))]


def serving(name: str) -> contextlib.AbstractContextManager[Process]:
    return running([sys.executable, "named_grpc.py", name])


async def server_endpoint(process: Process) -> Endpoint:
    deadline = now() + LIMIT
    while not process.output.endswith("\n"):
        process.check()
        if now() > deadline:
            raise BenchmarkError("a gRPC server did not start")
        await asyncio.sleep(0.01)
    return Endpoint(HOST, int(process.output))


@contextlib.asynccontextmanager
async def calling(endpoints: Sequence[Endpoint]) -> AsyncIterator[tuple[Mesh, Any]]:
    """Register an instance at each endpoint; give a stub that calls them by name."""
    from users_api import users_pb2_grpc  # noqa: PLC0415 - found when STUBS is

    async with open_registry("local://") as registry, Mesh(registry) as mesh:
        leases = [await registry.register(instance(each)) for each in endpoints]
        stub = mesh.grpc(users_pb2_grpc.UsersStub, SERVICE, timeout=TIMEOUT)
        renewing = asyncio.create_task(renew(registry, leases))
        yield mesh, stub
        renewing.cancel()


async def renew(registry: Registry, leases: Sequence[Lease]) -> None:
    while True:
        await asyncio.sleep(1)
        for lease in leases:
            await registry.renew(lease)


def instance(endpoint: Endpoint) -> Instance:
    # Without the mark: these servers do not name themselves.
    return Instance(id=f"users-{endpoint.port}", service=SERVICE, endpoints={"grpc": endpoint})


@contextlib.asynccontextmanager
async def round_robin(endpoints: Sequence[Endpoint]) -> AsyncIterator[Any]:
    from users_api import users_pb2_grpc  # noqa: PLC0415

    addresses = ",".join(map(str, endpoints))
    config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    options = [("grpc.service_config", config)]
    async with grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options) as channel:
        yield users_pb2_grpc.UsersStub(channel)  # type: ignore[no-untyped-call]


async def cpu(ours: Any, theirs: Any, rounds: int, flight: int) -> Result:
    cases = (
        functools.partial(cost, ours, flight, timeout=None),  # the client's own
        functools.partial(cost, theirs, flight, timeout=TIMEOUT),
    )
    mine, base = await alternate(rounds, *cases, warm_up=2)
    return compare(f"call_grpc_{flight}", mine, base, limit=1.10, unit="us")


async def cost(stub: Any, flight: int, *, timeout: float | None) -> float:
    """Return microseconds of CPU per call, with so many in flight."""
    from users_api.users_pb2 import GetUserRequest  # noqa: PLC0415

    request = GetUserRequest(id=7)

    async def caller() -> None:
        for _ in range(CALLS // flight):
            await stub.GetUser(request, timeout=timeout)

    gc.collect()
    before = time.process_time()
    await asyncio.gather(*(caller() for _ in range(flight)))
    return (time.process_time() - before) / (CALLS // flight * flight) * 1e6


async def changes(mesh: Mesh, rounds: int, places: Mapping[str, Endpoint]) -> Result:
    """Move an instance to and fro; its old address stays alive, so that no call need fail."""
    from users_api import users_pb2_grpc  # noqa: PLC0415

    stub: Any = mesh.grpc(users_pb2_grpc.UsersStub, MOVING, timeout=TIMEOUT)
    names = itertools.cycle(places)
    await move(mesh, places[next(names)])
    async with calls(stub, CALLERS) as answers:
        values = [await used(mesh, next(names), places, answers) for _ in range(rounds + 2)]
    note = f"worst {max(values[2:]):.3g} ms, {answers.count} calls, none failed"
    return Result(name="change_grpc", limit=10.0, values=values[2:], note=note, unit="ms")


async def used(mesh: Mesh, name: str, places: Mapping[str, Endpoint], answers: Answers) -> float:
    """Return the milliseconds from writing the address to the first answer from there."""
    await asyncio.sleep(PAUSE)
    answers.wanted, answers.seen = name, asyncio.get_running_loop().create_future()
    began = now()
    await move(mesh, places[name])
    async with asyncio.timeout(LIMIT):
        return (await answers.seen - began) * 1e3


async def move(mesh: Mesh, endpoint: Endpoint) -> None:
    await mesh.registry.register(Instance(id=MOVING, service=MOVING, endpoints={"grpc": endpoint}))


class Answers:
    """How many have come, and when the first one from whom it is told to look for."""

    def __init__(self) -> None:
        self.count = 0
        self.wanted = ""
        self.seen: asyncio.Future[float] | None = None

    def note(self, name: str) -> None:
        self.count += 1
        if name == self.wanted and self.seen is not None and not self.seen.done():
            self.seen.set_result(now())


@contextlib.asynccontextmanager
async def calls(stub: Any, callers: int) -> AsyncIterator[Answers]:
    """Make calls, one after the other on each of so many callers. One that fails is raised."""
    from users_api.users_pb2 import GetUserRequest  # noqa: PLC0415

    answers, ended = Answers(), asyncio.Event()

    async def caller() -> None:
        while not ended.is_set():
            answers.note((await stub.GetUser(GetUserRequest(id=7))).name)
            await asyncio.sleep(GAP)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
        yield answers
        ended.set()
