"""etcd's keys as a store of values: ``<prefix>/kv/<key>``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from meshkit.errors import ConfigError
from meshkit.registry.etcd import transactions, watching
from meshkit.registry.etcd.client import Client
from meshkit.registry.etcd.codec import shown
from meshkit.registry.etcd.messages import RANGE, TXN, make
from meshkit.registry.kv import ABSENT, Entry, KeyValue, check_key, check_value

log = logging.getLogger("meshkit.etcd")


class EtcdKeyValue(KeyValue):
    """An entry's revision is the revision of etcd's that wrote it."""

    propagation = 0.5

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._folder = f"{prefix}/kv/".encode()
        self._named: set[bytes] = set()  # foreign keys that were warned of

    async def get(self, key: str) -> Entry | None:
        request = make(RANGE.request, key=self._key(key))
        found = self._entries(
            {each.key: each for each in (await self._client.call(RANGE, request)).kvs}
        )
        return found[0] if found else None

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        contents = await watching.read(self._client, self._folder + prefix.encode())
        return self._entries(contents.entries)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> Entry | None:
        write = transactions.put(self._key(key), check_value(key, value))
        while True:
            revision = await self._revision(key) if expect is None else expect
            # A write on the caller's condition is not repeated: the second one would find the
            # first one's value. Nor is the making of a key, which may be gone again meanwhile.
            repeat = expect is None and revision != ABSENT
            answer = await self._write(key, write, revision, repeat=repeat)
            if answer.succeeded:
                return Entry(key=key, value=value, revision=answer.header.revision)
            if expect is not None:
                return None

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        remove = transactions.delete(self._key(key))
        while True:
            revision = await self._revision(key) if expect is None else expect
            if revision == ABSENT:
                return False
            # Repeated, it would not find what it has removed.
            answer = await self._write(key, remove, revision, repeat=False)
            if answer.succeeded or expect is not None:
                return bool(answer.succeeded)

    async def watch(self, prefix: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
        seen: tuple[Entry, ...] | None = None
        follow = watching.follow(self._client, self._folder + prefix.encode())
        async with contextlib.aclosing(follow) as changes:
            async for contents in changes:
                found = self._entries(contents.entries)
                if found != seen:
                    yield (seen := found)

    async def _revision(self, key: str) -> int:
        request = make(RANGE.request, key=self._key(key), keys_only=True)
        found = (await self._client.call(RANGE, request)).kvs
        return int(found[0].mod_revision) if found else ABSENT

    async def _write(self, key: str, write: Any, revision: int, *, repeat: bool) -> Any:
        """Do it if the key has this revision.

        Always on a condition: a member that hangs may carry out a request when it goes on, long
        after another one has, and over what was written since.
        """
        name = self._key(key)
        condition = (
            transactions.absent(name)
            if revision == ABSENT
            else transactions.unchanged(name, revision)
        )
        request = transactions.transaction(conditions=[condition], then=[write])
        return await self._client.call(TXN, request, repeat=repeat)

    def _key(self, key: str) -> bytes:
        return self._folder + check_key(key).encode()

    def _entries(self, entries: Mapping[bytes, Any]) -> tuple[Entry, ...]:
        """Return them sorted; a key that others made and that can't be asked for is left out."""
        found = []
        for name, entry in entries.items():
            try:
                key = check_key(name.removeprefix(self._folder).decode())
            except (ConfigError, UnicodeDecodeError):
                self._name(name)
            else:
                found.append(Entry(key=key, value=entry.value, revision=entry.mod_revision))
        return tuple(sorted(found, key=lambda each: each.key))

    def _name(self, name: bytes) -> None:
        if name not in self._named:
            self._named.add(name)
            place = ",".join(map(str, self._client.options.endpoints))
            log.warning("etcd at %s: skipping %s, which is no key of meshkit's", place, shown(name))
