"""The promises of :mod:`meshkit.registry.kv` as tests, to be inherited by each engine's own.

    from meshkit.testing.keyvalue_contract import KeyValueContract, Opener

    class TestRedisKeyValue(KeyValueContract):
        @pytest.fixture
        def opener(self, redis_port: int) -> Opener:
            return lambda: open_registry(f"redis://127.0.0.1:{redis_port}")

Each call of the opener returns another registry object on the same data, as other processes have
it; its ``kv`` is what is tested. The data may be shared by all tests and hold other things: all
keys of a test begin with a word of its own. As for anyio, see :mod:`registry_contract`.
"""

from __future__ import annotations

import asyncio
import secrets

import pytest

from meshkit.errors import ConfigError
from meshkit.registry.kv import ABSENT, KEY_LENGTH, VALUE_LIMIT, KeyValue
from meshkit.testing.keyvalue_fixtures import keys, values, written
from meshkit.testing.keyvalue_watches import KeyValueWatches
from meshkit.testing.registry_fixtures import Opener

__all__ = ["KeyValueContract", "Opener"]

BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/.",
    "a b",
    "a\n",
    "ä",
    "a:b",
    "a\0",
]
BAD_KEYS += ["a" * (KEY_LENGTH + 1)]
VALUES = {
    "text": "Zürich 東京 🚀".encode(),
    "empty": b"",
    "line ends": b"a\r\nb\n\n",
    "all bytes": bytes(range(256)),
    "largest": secrets.token_bytes(1024) * (VALUE_LIMIT // 1024),
}


@pytest.mark.anyio
class KeyValueContract(KeyValueWatches):
    """See the module."""

    # --- reading and writing ----------------------------------------------------------------------

    async def test_what_is_put_is_there(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """At once, for everybody, by reading it alone or in a list; another put replaces it."""
        key = f"{root}/orders/limit"
        for value in (b"1", b"2"):
            put = written(await kv.put(key, value))
            assert (put.key, put.value, put.text) == (key, value, value.decode())
            assert await kv.get(key) == await other.get(key) == put
            assert await kv.list(root) == await other.list(root) == (put,)

    async def test_an_unknown_key_is_none(self, kv: KeyValue, root: str) -> None:
        """And an empty list, no error; so is what is only the beginning of a key."""
        await kv.put(f"{root}/a/b", b"1")
        assert await kv.get(f"{root}/c") is None
        assert await kv.get(f"{root}/a") is None
        assert await kv.list(f"{root}/c") == ()
        assert not await kv.delete(f"{root}/a")
        assert not await kv.delete(f"{root}/c")
        assert await kv.get(f"{root}/a/b")

    async def test_delete_removes_one_key(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """And says whether there was one; what lies below or beside it stays."""
        for name in ("a", "a/b", "a/b/c", "ab"):
            await kv.put(f"{root}/{name}", name.encode())
        assert await kv.delete(f"{root}/a/b") is True
        assert await other.delete(f"{root}/a/b") is False
        assert await other.get(f"{root}/a/b") is None
        assert keys(await other.list(root)) == [f"{root}/{each}" for each in ("a", "a/b/c", "ab")]
        assert await kv.delete(f"{root}/a") is True
        assert keys(await other.list(root)) == [f"{root}/{each}" for each in ("a/b/c", "ab")]

    async def test_a_prefix_is_any_text(self, kv: KeyValue, root: str) -> None:
        """It may cut a word, end in a slash, be a whole key, or be what no key can begin with."""
        names = ("conf", "config/a", "config/b/c", "configs", "other")
        for name in names:
            await kv.put(f"{root}/{name}", b"1")
        for prefix, count in {"": 5, "con": 4, "config": 3, "config/": 2, "config/b/c": 1}.items():
            found = [name for name in names if name.startswith(prefix)]
            assert keys(await kv.list(f"{root}/{prefix}")) == [f"{root}/{n}" for n in found]
            assert len(found) == count
        for strange in ("//", "../", "c%", "c*", "C", "c\n", "c ü\0", "config/a/"):
            assert await kv.list(f"{root}/{strange}") == ()
        assert await kv.list("/") == ()
        assert set(await kv.list(root)) <= set(await kv.list())

    async def test_lists_are_sorted_by_key(self, kv: KeyValue, root: str) -> None:
        """As text, not folder by folder; capital letters are other letters."""
        names = [
            "A",
            "Z",
            "a",
            "a-b",
            "a.b",
            "a/b",
            "a/b-c",
            "a/b/c",
            "a0",
            "aB",
            "a_b",
            "b",
            "z..",
        ]
        for name in reversed(names):
            await kv.put(f"{root}/{name}", name.encode())
        entries = await kv.list(f"{root}/")
        assert [entry.text for entry in entries] == names
        assert keys(entries) == [f"{root}/{name}" for name in names]

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    async def test_values_survive(
        self, kv: KeyValue, other: KeyValue, root: str, value: bytes
    ) -> None:
        """Byte by byte, whichever way they are read."""
        key = f"{root}/value"
        async with self.followed(other, root) as watched:
            assert await watched.next() == ()
            put = written(await kv.put(key, value))
            assert await watched.until(values(value)) == (put,)
        assert put.value == value
        assert await other.get(key) == put
        assert await other.list(root) == (put,)

    async def test_too_large_a_value_is_refused(self, kv: KeyValue, root: str) -> None:
        """Before it is sent anywhere, with what was there in place."""
        put = await kv.put(f"{root}/a", b"1")
        for value in (bytes(VALUE_LIMIT + 1), bytes(4 * VALUE_LIMIT)):
            with pytest.raises(ConfigError, match=f"{root}/a.*{len(value)} bytes"):
                await kv.put(f"{root}/a", value)
        assert await kv.list(root) == (put,)

    @pytest.mark.parametrize("key", BAD_KEYS)
    async def test_a_bad_key_is_refused(self, kv: KeyValue, key: str) -> None:
        """By whatever takes a key."""
        for attempt in (kv.get(key), kv.put(key, b"1"), kv.delete(key)):
            with pytest.raises(ConfigError, match="invalid key"):
                await attempt

    async def test_every_good_key_is_taken(self, kv: KeyValue, root: str) -> None:
        """The longest, as one word or as many, dots, and words that servers might use."""
        room = KEY_LENGTH - len(root) - 1
        words = [
            "w" * room,
            "w" * (room - 1) + "v",
            "d/" * ((room - 1) // 2) + "d",
            "...",
            "..a",
            ".x",
        ]
        words += ["-", "_", "a.tmp", "a.json", "a.lock", "Aa0._-", "_kv", "session", "raft/1"]
        for word in words:
            assert await kv.put(f"{root}/{word}", word[-9:].encode(), expect=ABSENT), word
        for word in words:
            assert written(await kv.get(f"{root}/{word}")).text == word[-9:]
        assert keys(await kv.list(root)) == sorted(f"{root}/{word}" for word in words)
        for word in words:
            assert await kv.delete(f"{root}/{word}"), word

    # --- revisions and compare-and-set ------------------------------------------------------------

    async def test_each_change_has_another_revision(self, kv: KeyValue, root: str) -> None:
        """Also after the key was removed and made again with the same value."""
        changes = [await kv.put(f"{root}/a", value) for value in (b"1", b"2", b"1", b"")]
        seen = [written(entry).revision for entry in changes]
        for _ in range(3):
            await kv.delete(f"{root}/a")
            seen.append(written(await kv.put(f"{root}/a", b"1")).revision)
        assert len(set(seen)) == len(seen)
        assert ABSENT not in seen

    async def test_a_revision_is_its_keys_own(self, kv: KeyValue, root: str) -> None:
        """What happens to other keys, below it too, does not change it."""
        put = await kv.put(f"{root}/a", b"1")
        for name in ("a/b", "b", "aa"):
            await kv.put(f"{root}/{name}", b"1")
        await kv.delete(f"{root}/a/b")
        assert await kv.get(f"{root}/a") == put

    async def test_put_if_unchanged(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """A revision that is no longer the key's, of a key that is gone too, writes nothing."""
        key = f"{root}/a"
        first = written(await kv.put(key, b"1"))
        second = written(await other.put(key, b"2", expect=first.revision))
        assert await kv.get(key) == second
        assert await kv.put(key, b"3", expect=first.revision) is None
        assert await kv.put(key, b"3", expect=second.revision + 12345) is None
        assert await kv.get(key) == second
        await kv.delete(key)
        assert await kv.put(key, b"3", expect=second.revision) is None
        assert await kv.list(root) == ()
        again = written(await kv.put(key, b"2"))
        assert await other.put(key, b"3", expect=second.revision) is None
        assert await other.get(key) == again

    async def test_put_if_absent(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """Once, and once more after it was removed; a key that is only below is another."""
        key = f"{root}/a"
        await kv.put(f"{key}/b", b"0")
        for _ in range(2):
            put = written(await kv.put(key, b"1", expect=ABSENT))
            assert await other.put(key, b"2", expect=ABSENT) is None
            assert await other.get(key) == put
            await kv.delete(key)

    async def test_delete_if_unchanged(self, kv: KeyValue, other: KeyValue, root: str) -> None:
        """Only the revision that is there is removed."""
        key = f"{root}/a"
        first = written(await kv.put(key, b"1"))
        second = written(await kv.put(key, b"2"))
        assert await other.delete(key, expect=first.revision) is False
        assert await other.delete(key, expect=ABSENT) is False
        assert await other.get(key) == second
        assert await other.delete(key, expect=second.revision) is True
        assert await kv.delete(key, expect=second.revision) is False
        assert await kv.get(key) is None
        assert await kv.delete(key, expect=ABSENT) is False

    async def test_one_of_many_wins(self, connect: Opener, root: str) -> None:
        """To make a key, to replace it, and to remove it, each at the same moment."""
        stores = [connect().kv for _ in range(5)]
        key = f"{root}/leader"
        for _ in range(3):
            made = await asyncio.gather(
                *(kv.put(key, b"%d" % n, expect=ABSENT) for n, kv in enumerate(stores))
            )
            (first,) = filter(None, made)
            assert await stores[0].get(key) == first
            replaced = await asyncio.gather(
                *(kv.put(key, b"1%d" % n, expect=first.revision) for n, kv in enumerate(stores))
            )
            (last,) = filter(None, replaced)
            removed = await asyncio.gather(*(kv.delete(key, expect=last.revision) for kv in stores))
            assert sorted(removed) == [False] * 4 + [True]

    async def test_concurrent_increments_lose_none(self, connect: Opener, root: str) -> None:
        """What compare-and-set is for."""
        stores, times, key = [connect().kv for _ in range(4)], 10, f"{root}/counter"

        async def increment(kv: KeyValue) -> None:
            entry = await kv.get(key)
            count, revision = (int(entry.value), entry.revision) if entry else (0, ABSENT)
            if not await kv.put(key, b"%d" % (count + 1), expect=revision):
                await increment(kv)

        async def count(kv: KeyValue) -> None:
            for _ in range(times):
                await increment(kv)

        await asyncio.gather(*map(count, stores))
        assert written(await stores[0].get(key)).value == b"%d" % (times * len(stores))
        await stores[0].delete(key)
