"""The part of the key-value contract that is about watching."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from meshkit.registry.kv import ABSENT, KeyValue
from meshkit.testing.keyvalue_fixtures import KeyValueFixtures, keys, values, written
from meshkit.testing.registry_fixtures import Opener


@pytest.mark.anyio
class KeyValueWatches(KeyValueFixtures):
    """See :mod:`meshkit.testing.keyvalue_contract`, which is what to inherit."""

    async def test_a_watch_begins_with_the_list(
        self, kv: KeyValue, other: KeyValue, root: str
    ) -> None:
        """Without any change, and an empty one is no error."""
        async with self.followed(other, root) as watched:
            assert await watched.next() == ()
        put = [written(await kv.put(f"{root}/{name}", b"1")) for name in ("a", "b/c")]
        async with self.followed(other, root) as watched:
            assert await watched.next() == tuple(put)

    async def test_each_list_is_full(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """Never a difference: all entries, sorted, as ``list`` returns them."""
        async with self.followed(other, f"{root}/con") as watched:
            for names in (["b"], ["a", "b"], ["a", "a/x", "b"]):
                for name in names:
                    await kv.put(f"{root}/config/{name}", b"%d" % len(names))
                expected = [b"%d" % len(names)] * len(names)
                found = await watched.until(values(*expected))
                assert keys(found) == [f"{root}/config/{name}" for name in names]
                assert found == await other.list(f"{root}/con")
            await kv.delete(f"{root}/config/a")
            found = await watched.until(values(b"3", b"3"))
            assert keys(found) == [f"{root}/config/{name}" for name in ("a/x", "b")]
            for name in ("a/x", "b"):
                await kv.delete(f"{root}/config/{name}")
            await watched.until(values())

    async def test_no_list_without_a_change(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """In the prefix: what happens beside it is none, nor is a write that was not done."""
        key = f"{root}/config/a"
        put = written(await kv.put(key, b"1"))
        async with self.followed(other, f"{root}/config/") as watched:
            assert await watched.next() == (put,)
            await kv.put(f"{root}/conf", b"1")
            await kv.put(f"{root}/configs/a", b"1")
            await kv.delete(f"{root}/conf")
            await kv.put(key, b"2", expect=ABSENT)
            await kv.delete(key, expect=put.revision + 12345)
            await kv.delete(f"{key}/b")
            await watched.nothing(seconds=self.calm)
            await kv.put(key, b"2")
            await watched.until(values(b"2"))

    async def test_the_last_list_is_the_truth(
        self, kv: KeyValue, other: KeyValue, root: str
    ) -> None:
        """Quick changes may be seen together, but the last ones are not lost."""
        truth: dict[str, bytes] = {}
        async with self.followed(other, root) as watched:
            await watched.next()
            for step in range(1, 101):
                key = f"{root}/{'abcdefg'[step * 3 % 7]}"
                if key in truth and step % 4 == 0:
                    await kv.delete(key)
                    del truth[key]
                else:
                    truth[key] = b"%d" % step
                    await kv.put(key, truth[key])
            found = await watched.until(values(*(truth[key] for key in sorted(truth))))
            assert keys(found) == sorted(truth)
            await watched.nothing(seconds=self.calm)

    async def test_all_watchers_see(self, kv: KeyValue, connect: Opener, root: str) -> None:
        """Several watches of one registry object, and those of others."""
        shared = connect().kv
        async with contextlib.AsyncExitStack() as stack:
            watches = [
                await stack.enter_async_context(self.followed(each, root))
                for each in (shared, shared, connect().kv, kv)
            ]
            await asyncio.gather(*(watched.next() for watched in watches))
            await kv.put(f"{root}/a", b"1")
            await asyncio.gather(*(watched.until(values(b"1")) for watched in watches))
            await watches[0].aclose()  # the others go on
            await kv.put(f"{root}/a", b"2")
            await asyncio.gather(*(watched.until(values(b"2")) for watched in watches[1:]))

    async def test_closing_ends_what_is_pending(self, opener: Opener, root: str) -> None:
        """A watch that waits ends or fails, or can be cancelled; no file and no task stays."""
        await self.closing_leaves_nothing(opener, lambda registry: registry.kv.watch(root))

    async def test_cancelled_watches_leave_nothing(self, kv: KeyValue, root: str) -> None:
        """Neither tasks nor files, over and over; an idle connection may be kept for reuse."""
        await self.cancelling_leaves_nothing(lambda: self.followed(kv, root))
