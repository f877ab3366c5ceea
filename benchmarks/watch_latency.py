"""From a change to its being seen: meshkit's watch against the barest one of the same engine.

An instance is registered again and again under a new version. What is timed is from the call that
registers it until a watch in the same process holds the new version; the two watches take turns
of 40 changes each on one server. The bare watches are inotify and reading the files, Consul's
blocking query on one connection, etcd's Watch stream, and ZooKeeper's watches of children and data.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import random
import statistics
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from engines import RAW, Running, running
from measure import BenchmarkError, Result, alternate, compare, now

from meshkit import Endpoint, Instance, Snapshot
from meshkit.registry import open_registry
from meshkit.registry.base import Registry

ROUNDS = 5
CHANGES = 40
GAP = 0.05
LIMIT = 10.0
SERVICE = "users"
VERSIONS = itertools.count(1)

T = TypeVar("T")


async def run(rounds: int) -> list[Result]:
    results = []
    for name in RAW:
        async with running(name) as registry, open_registry(registry.url) as writer:
            results.append(await measure(registry, writer, rounds))
    return results


async def measure(registry: Running, writer: Registry, rounds: int) -> Result:
    """Compare the two watches; the note holds the tails of all rounds."""
    ours: list[float] = []
    theirs: list[float] = []

    async def mesh() -> float:
        async with open_registry(registry.url) as reader:
            return await median(writer, reader.watch(SERVICE), listed, ours)

    async def raw() -> float:
        return await median(writer, RAW[registry.name](registry, SERVICE), written, theirs)

    medians = await alternate(rounds, mesh, raw)
    result = compare(f"watch_{registry.name}", *medians, limit=1.3, unit="ms")
    tails = " against ".join(f"{tail(values):.3g}" for values in (ours, theirs))
    return dataclasses.replace(result, note=f"{result.note}, p99 {tails} ms")


async def median(
    writer: Registry,
    watch: AsyncGenerator[T, None],
    holds: Callable[[T, str], bool],
    pool: list[float],
) -> float:
    """Make the changes and return the median of their times in milliseconds; all go to ``pool``."""
    seen = asyncio.Event()
    wanted = ""

    async def follow() -> None:
        async with contextlib.aclosing(watch):
            async for content in watch:
                if holds(content, wanted):
                    seen.set()

    follower = asyncio.create_task(follow())
    times = []
    try:
        for _ in range(CHANGES):
            await asyncio.sleep(random.uniform(0.5, 1.5) * GAP)
            seen.clear()
            wanted = f"v{next(VERSIONS)}"
            began = now()
            await writer.register(instance(wanted))
            async with asyncio.timeout(LIMIT):
                await seen.wait()
            times.append((now() - began) * 1000)
    except TimeoutError:
        raise BenchmarkError(f"{writer.url}: a change was not seen in {LIMIT:.0f} s") from None
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    pool += times
    return statistics.median(times)


def instance(version: str) -> Instance:
    endpoints = {"http": Endpoint("127.0.0.1", 8000)}
    return Instance(id="users-1", service=SERVICE, version=version, endpoints=endpoints)


def listed(snapshot: Snapshot, version: str) -> bool:
    return any(each.version == version for each in snapshot.instances)


def written(content: bytes, version: str) -> bool:
    return f'"{version}"'.encode() in content


def tail(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[-1]
