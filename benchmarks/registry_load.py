"""Requests per second that 100 idle instances cause at the registry: heartbeats, nothing else.

The instances are registrations as `meshkit run` makes them, each on a thread and a connection of
its own, in one process. Counted is what the server itself has received: Consul's requests in its
log, etcd's messages and ZooKeeper's packets in their own metrics. The embedded registry has no
server; its renewals look at a file.
"""

from __future__ import annotations

import asyncio
import functools
import re
import urllib.request
from collections.abc import Callable

from engines import RAW, Running, running
from measure import BenchmarkError, Result, pace

from meshkit import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.runtime.registration import Registration
from tests.servers.consul import Consul
from tests.servers.etcd import Etcd
from tests.servers.zookeeper import ZooKeeper

ROUNDS = 1
INSTANCES = 100
SETTLE = 5.0
WINDOW, WINDOW_QUICK = 30.0, 15.0


async def run(rounds: int) -> list[Result]:
    return [await measure(name, rounds) for name in RAW if name in COUNTERS]


def window() -> float:
    return pace.of(WINDOW, quick=WINDOW_QUICK)


async def measure(name: str, rounds: int) -> Result:
    async with running(name) as registry:
        count = functools.partial(COUNTERS[name], registry)
        fleet = [
            Registration(functools.partial(open_registry, registry.url), make(each), lag_limit=5)
            for each in range(INSTANCES)
        ]
        for registration in fleet:
            registration.start()
        try:
            registered = await asyncio.gather(*(each.first(30.0) for each in fleet))
            if not all(registered):
                raise BenchmarkError(f"{registry.url}: {registered.count(False)} not registered")
            await asyncio.sleep(SETTLE)
            rates = [await rate(count) for _ in range(rounds)]
        finally:
            await asyncio.gather(*(each.stop() for each in fleet))
    return Result(
        name=f"load_{name}",
        limit=None,
        values=rates,
        note=f"by {INSTANCES} instances in {window():.0f} s",
        unit="/s",
    )


async def rate(count: Callable[[], int]) -> float:
    before = await asyncio.to_thread(count)
    await asyncio.sleep(window())
    return (await asyncio.to_thread(count) - before) / window()


def make(number: int) -> Instance:
    return Instance(
        id=f"users-{number}",
        service="users",
        endpoints={"http": Endpoint("127.0.0.1", 10_000 + number)},
    )


def consul_requests(registry: Running) -> int:
    assert isinstance(registry.server, Consul)
    return len(re.findall(r"agent\.http: Request finished", registry.server.log))


def etcd_messages(registry: Running) -> int:
    assert isinstance(registry.server, Etcd)
    url = f"http://127.0.0.1:{registry.server.metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    received = (line for line in lines if line.startswith("grpc_server_msg_received_total"))
    return sum(int(float(line.rpartition(" ")[2])) for line in received)


def zookeeper_packets(registry: Running) -> int:
    assert isinstance(registry.server, ZooKeeper)
    found = re.search(r"zk_packets_received\s+(\d+)", registry.server.ask("mntr"))
    if found is None:
        raise BenchmarkError(f"{registry.url} does not tell how much it received")
    return int(found[1])


COUNTERS: dict[str, Callable[[Running], int]] = {
    "consul": consul_requests,
    "etcd": etcd_messages,
    "zookeeper": zookeeper_packets,
}
