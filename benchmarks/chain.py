"""Two services in a row, against the same two programs written by hand.

A client asks orders over HTTP, whose handler asks users over HTTP or gRPC and answers with what it
learned. Ours is two meshkit services that find each other in the embedded registry, with all that
is on by default. By hand it is two FastAPI applications with fixed addresses and one shared client
with a timeout: httpx 0.28, httpx2, or a channel of grpc.aio. Each is a process of its own, and all
take their bursts in turn.

chain_X_N: time of a call, which is 1 / (calls a second), with N in flight, ours against X.
chain_X_cpu_N: CPU of both processes together for a call, all of their threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import AsyncIterator, Sequence

from measure import BenchmarkError, Result, alternate, compare, now
from processes import Process, cpu_seconds, meshkit, running, uvicorn
from watcher import Watcher
from wire import first_answer, free_port, get, load

from meshkit import Endpoint

ROUNDS = 15
CALLS = {1: 300, 32: 960}  # by how many are in flight
# Ours against each, by the last part of the path.
PAIRS = (("http", "httpx"), ("http", "httpx2"), ("grpc", "grpc"))
# Over gRPC both sides use grpc.aio: what a call by name may cost, times what a service may add.
LIMITS = {"http": 1.0, "grpc": 1.10 * 1.15}


@dataclasses.dataclass(frozen=True, slots=True)
class Burst:
    """What one call of a burst took, in microseconds."""

    time: float
    cpu: float


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """Two services in a row, and where the first one is."""

    entrance: Endpoint
    processes: Sequence[Process]

    async def burst(self, via: str, flight: int) -> Burst:
        before, began = self._cpu(), now()
        calls = CALLS[flight]
        await load(self.entrance, requests=calls, connections=flight, path=path(via))
        return Burst((now() - began) / calls * 1e6, (self._cpu() - before) / calls * 1e6)

    def _cpu(self) -> float:
        return sum(cpu_seconds(each.pid) for each in self.processes)


async def run(rounds: int) -> list[Result]:
    results = []
    async with ours() as mesh, by_hand() as plain:
        for mine, base in PAIRS:
            check(mesh, mine, plain, base)
            for flight in CALLS:
                cases = (
                    functools.partial(mesh.burst, mine, flight),
                    functools.partial(plain.burst, base, flight),
                )
                pair = await alternate(rounds, *cases, warm_up=2)
                results += rows(f"chain_{base}", flight, LIMITS[mine], *pair)
    return results


def rows(
    name: str, flight: int, limit: float, mine: Sequence[Burst], theirs: Sequence[Burst]
) -> list[Result]:
    times = ([each.time for each in bursts] for bursts in (mine, theirs))
    costs = ([each.cpu for each in bursts] for bursts in (mine, theirs))
    return [
        compare(f"{name}_{flight}", *times, limit=limit, unit="us"),
        compare(f"{name}_cpu_{flight}", *costs, limit=limit, unit="us"),
    ]


def path(via: str) -> str:
    return f"/{via}/orders/7"


def check(mesh: Chain, mine: str, plain: Chain, base: str) -> None:
    answers = [get(mesh.entrance, path(mine)), get(plain.entrance, path(base))]
    if answers[0] != answers[1] or answers[0][0] != 200:
        raise BenchmarkError(f"chain over {base}: the answers are {answers[0]} and {answers[1]}")


@contextlib.asynccontextmanager
async def ours() -> AsyncIterator[Chain]:
    async with Watcher("users") as users_seen, Watcher("orders") as orders_seen:
        with (
            running(meshkit("run", "mesh_grpc:UsersGrpc")) as users,
            running(meshkit("run", "orders_mesh:Orders")) as orders,
        ):
            await users_seen.wait_for(1, users)
            entrance = (await orders_seen.wait_for(1, orders))[0].instance.endpoints["http"]
            yield Chain(entrance, (users, orders))


@contextlib.asynccontextmanager
async def by_hand() -> AsyncIterator[Chain]:
    http, rpc, entrance = (Endpoint("127.0.0.1", free_port()) for _ in range(3))
    places = {"USERS_HTTP": str(http), "USERS_GRPC": str(rpc)}
    command = [sys.executable, "plain_grpc.py", str(http.port), str(rpc.port)]
    with (
        running(command) as users,
        running(uvicorn("orders_plain:app", entrance.port), **places) as orders,
    ):
        await first_answer(users, lambda: http)
        await first_answer(orders, lambda: entrance, path("grpc"))
        yield Chain(entrance, (users, orders))
