"""Values of ``local://`` among real processes that write at once and are killed."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from meshkit.registry.kv import Entry, KeyValue
from meshkit.registry.local import LocalRegistry
from meshkit.testing.watched import Watched
from tests.registry.processes import Nursery
from tests.support.waiting import aeventually

TIMES = 60


def whole(entry: Entry) -> int:
    """The count in a value, which consists of nothing but repetitions of it."""
    words = entry.value.split()
    assert len(set(words)) == 1, "torn"
    assert len(words) == 10_000, "torn"
    return int(words[0])


def noted(log: Path) -> list[tuple[int, int]]:
    """What a process has noted: (count, revision) of each of its increments."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(count), int(revision)) for count, revision in map(str.split, lines)]


async def read_again_and_again(kv: KeyValue) -> int:
    """Return how often, when cancelled; the key is never missing and never counts down."""
    seen, looks = 0, 0
    while True:
        try:
            (entry,) = await kv.list("count")
            one = await kv.get("counter")
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return looks
        assert one
        assert seen <= whole(entry) <= (seen := whole(one))
        looks += 1


async def test_increments_of_killed_processes_are_not_lost(
    tmp_path: Path, nursery: Nursery
) -> None:
    chance = random.Random(3)
    kv = LocalRegistry("local://", tmp_path, tmp_path / "default").kv
    logs = {f"w{n}": tmp_path / f"log{n}" for n in range(8)}
    killed = [f"w{n}" for n in range(5, 8)]
    for name, log in logs.items():
        nursery.spawn(name)
        nursery.tell(name, "count", "counter", TIMES if name not in killed else 10**6, log)
    await aeventually(lambda: kv.get("counter"))
    reading = asyncio.create_task(read_again_and_again(kv))
    for name in killed:
        await asyncio.sleep(chance.uniform(0.2, 0.6))
        nursery.kill(name)
    survivors = [log for name, log in logs.items() if name not in killed]

    async def all_done() -> bool:
        return all(len(noted(log)) == TIMES for log in survivors)

    await aeventually(all_done, within=60)
    reading.cancel()
    assert await reading > 5
    increments = sorted(pair for log in logs.values() for pair in noted(log))
    assert sum(len(noted(logs[name])) for name in killed) > 3, "they were killed before they began"
    counts, revisions = zip(*increments, strict=True)
    assert len(set(counts)) == len(counts), "two have made the same step"
    assert sorted(set(revisions)) == list(revisions), "revisions do not grow with the count"
    last = await kv.get("counter")
    assert last
    # A killed one may have written without having noted it.
    assert len(counts) <= whole(last) <= len(counts) + len(killed)


async def test_killed_while_writing_leaves_the_old_value_or_the_new(
    tmp_path: Path, nursery: Nursery
) -> None:
    chance, strays = random.Random(7), 0
    kv = LocalRegistry("local://", tmp_path, tmp_path / "default").kv
    temp = tmp_path / "default" / "_kv" / ":temp"
    async with Watched(kv.watch("v")) as watched:
        for n in range(20):
            nursery.spawn(f"w{n}")
            nursery.tell(f"w{n}", "fill", "value")
            await watched.until(lambda entries: len(entries) == 1)
            await asyncio.sleep(chance.uniform(0, 0.02))
            nursery.kill(f"w{n}")
            strays += temp.exists()
            (entry,) = await kv.list()
            assert len(set(entry.value.split())) == 1, "torn"
            assert await kv.delete("value", expect=entry.revision), "the lock is not free"
            await watched.until(lambda entries: entries == ())
    assert strays, "no process was killed while it wrote: this test has shown nothing"
