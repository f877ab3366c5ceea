"""A consumer that watches 200 services with 5,000 instances, beside one that watches a single one.

Both are processes of their own on the same registry, which holds all 5,000. An instance of the
service that both watch is changed again and again: how long until each has the new list, and the
CPU time that it took. Then nothing changes: CPU in clock ticks (10 ms on most machines),
and the memory that only the process holds (USS).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import resource
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import consumer
from engines import RAW, Running, running as running_registry
from measure import BenchmarkError, Result, compare, now, pace
from processes import TICK, Process, cpu_seconds, private_memory, running

from meshkit import Endpoint, Instance
from meshkit.registry import open_registry
from meshkit.registry.base import Lease, Registry
from tests.servers.consul import Consul
from tests.servers.etcd import Etcd

ROUNDS = 40
SERVICES, EACH = 200, 25
AT_ONCE = 16
FILES = 12_000  # the embedded registry holds an open file for each instance
IDLE, IDLE_QUICK = 20.0, 8.0
LIMIT = 120.0
POLL = 0.001

PROGRAM = Path(consumer.__file__)


async def run(rounds: int) -> list[Result]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    results: list[Result] = []
    for name in RAW:
        async with (
            running_registry(name) as registry,
            open_registry(registry.url) as writer,
            filled(registry, writer),
        ):
            results += await measure(registry, writer, rounds)
    return results


def idle_time() -> float:
    return pace.of(IDLE, quick=IDLE_QUICK)


async def measure(registry: Running, writer: Registry, rounds: int) -> list[Result]:
    many = [sys.executable, str(PROGRAM), registry.url, str(SERVICES)]
    single = [sys.executable, str(PROGRAM), registry.url, "1"]
    with running(many) as ours, running(single) as base:
        await ready(ours, SERVICES * EACH)
        await ready(base, EACH)
        before = cpu_seconds(ours.pid), cpu_seconds(base.pid)
        times = [await change(writer, f"v{number}", ours, base) for number in range(rounds)]
        used = cpu_seconds(ours.pid) - before[0], cpu_seconds(base.pid) - before[1]
        await writer.deregister(consumer.CHANGING)
        memory = private_memory(ours.pid), private_memory(base.pid)
        idle = await quiet(ours, base)
    name = f"many_{registry.name}"
    ratios = compare(
        f"{name}_seen",
        [each[0] for each in times],
        [each[1] for each in times],
        limit=1.3,
        unit="ms",
    )
    per_change = [1000 * seconds / rounds for seconds in used]
    return [
        ratios,
        compare(f"{name}_cpu_per_change", per_change[:1], per_change[1:], limit=None, unit="ms"),
        compare(f"{name}_private_memory", memory[:1], memory[1:], limit=None, unit="MiB"),
        Result(
            name=f"{name}_idle_cpu",
            limit=None,
            values=[idle[0] / TICK],
            note=f"{1000 * idle[0]:.3g} against {1000 * idle[1]:.3g} ms in {idle_time():.0f} s",
            unit="ticks",
        ),
    ]


@contextlib.asynccontextmanager
async def filled(registry: Running, writer: Registry) -> AsyncIterator[None]:
    """Register all instances, and keep them registered where that takes something."""
    leases = await fill(registry, writer)
    renewing = asyncio.create_task(renew(writer, leases))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def renew(writer: Registry, leases: list[Lease]) -> None:
    while leases:
        for lease in leases:
            await writer.renew(lease)
        await asyncio.sleep(leases[0].interval)


async def fill(registry: Running, writer: Registry) -> list[Lease]:
    """Return the leases that have to be renewed.

    Five thousand instances are as many processes elsewhere. One could not renew all of their
    leases in Consul and etcd, so they have none there.
    """
    leases: list[Lease] = []
    numbers = itertools.count()
    fleet = (
        make(consumer.service(service), f"i{service:03}-{each:02}", next(numbers))
        for service in range(SERVICES)
        for each in range(EACH)
    )

    async def work() -> None:
        for instance in fleet:
            if isinstance(registry.server, Consul):
                await asyncio.to_thread(register_unchecked, registry.server, instance)
            elif isinstance(registry.server, Etcd):
                await asyncio.to_thread(put_unleased, registry.server, instance)
            elif registry.server is None:
                leases.append(await writer.register(instance))
            else:
                await writer.register(instance)  # lasts as long as the writer's session

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return leases


def put_unleased(server: Etcd, instance: Instance) -> None:
    """Write what meshkit writes, but bound to no lease, by etcd's JSON gateway."""
    key = f"/meshkit/services/{instance.service}/{instance.id}"
    pair = {"key": key.encode(), "value": json.dumps(instance.to_dict()).encode()}
    body = {name: base64.b64encode(content).decode() for name, content in pair.items()}
    request = urllib.request.Request(
        f"http://{server.address}/v3/kv/put", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()


def register_unchecked(server: Consul, instance: Instance) -> None:
    """Register as meshkit does, but for the check."""
    addresses = {
        name: {"Address": endpoint.host, "Port": endpoint.port}
        for name, endpoint in instance.endpoints.items()
    }
    server.put(
        "/v1/agent/service/register",
        {
            "ID": instance.id,
            "Name": instance.service,
            "Tags": list(instance.tags),
            "Address": addresses["http"]["Address"],
            "Port": addresses["http"]["Port"],
            "TaggedAddresses": addresses,
            "Meta": {**instance.metadata, "version": instance.version, "meshkit-zone": "a"},
        },
    )


def make(service: str, name: str, number: int, version: str = "1.0.0") -> Instance:
    endpoints = {
        "http": Endpoint("127.0.0.1", 1024 + number),
        "grpc": Endpoint("127.0.0.1", 32_768 + number % 30_000),
    }
    return Instance(
        id=name,
        service=service,
        version=version,
        tags=("v1", "blue"),
        metadata={"team": "shop", "commit": "0f3c2a1"},
        endpoints=endpoints,
        zone="a",
    )


async def ready(process: Process, instances: int) -> None:
    """Wait until the consumer has all lists."""
    deadline = now() + LIMIT
    while f"ready {instances}" not in process.output:
        process.check()
        if now() > deadline:
            raise BenchmarkError(f"{process.output.strip() or 'nothing'} instead of {instances}")
        await asyncio.sleep(0.1)


async def change(writer: Registry, version: str, *processes: Process) -> tuple[float, ...]:
    """Change an instance; return after how many milliseconds each process had it."""
    await asyncio.sleep(0.3)
    began = now()
    await writer.register(make(consumer.service(0), consumer.CHANGING, 0, version))
    return tuple([1000 * (await seen(process, version) - began) for process in processes])


async def seen(process: Process, version: str) -> float:
    deadline = now() + LIMIT
    while now() < deadline:
        for line in reversed(process.output.splitlines()):
            words = line.split()
            if words[0] == "seen" and words[2:] == [version]:
                return float(words[1])
        process.check()
        await asyncio.sleep(POLL)
    raise BenchmarkError(f"a change was not seen within {LIMIT:.0f} s")


async def quiet(*processes: Process) -> list[float]:
    """Return the CPU seconds that each uses while nothing changes."""
    await asyncio.sleep(2)
    before = [cpu_seconds(each.pid) for each in processes]
    await asyncio.sleep(idle_time())
    return [
        cpu_seconds(each.pid) - earlier for each, earlier in zip(processes, before, strict=True)
    ]
