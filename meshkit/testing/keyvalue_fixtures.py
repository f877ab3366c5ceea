"""What the key-value contract's tests stand on: conditions and fixtures."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from meshkit.registry.kv import Entry, KeyValue
from meshkit.testing.registry_fixtures import Opener, RegistryFixtures
from meshkit.testing.watched import Watched

Entries = tuple[Entry, ...]


class KeyValueFixtures(RegistryFixtures):
    """Two stores on the same data, and a word that all keys of a test begin with."""

    @pytest.fixture
    def root(self) -> str:
        """Return a word that no other test's keys begin with."""
        return f"kv-{secrets.token_hex(4)}"

    @pytest.fixture
    async def kv(self, connect: Opener, root: str) -> AsyncIterator[KeyValue]:
        """Return the store by one registry object; what the test leaves there is removed."""
        kv = connect().kv
        yield kv
        for entry in await kv.list(root):
            await kv.delete(entry.key)

    @pytest.fixture
    async def other(self, connect: Opener) -> KeyValue:
        """Return the same store by another registry object."""
        return connect().kv

    def followed(self, kv: KeyValue, prefix: str) -> Watched[Entries]:
        """Watch a prefix, with this engine's patience."""
        return Watched(kv.watch(prefix), patience=self.patience)


def written(entry: Entry | None) -> Entry:
    """Return the entry that must be there."""
    assert entry is not None, "nothing was written or found"
    return entry


def keys(entries: Iterable[Entry]) -> list[str]:
    """Return the entries' keys, in their order."""
    return [entry.key for entry in entries]


def values(*expected: bytes) -> Callable[[Entries], bool]:
    """Return a condition: exactly these values, in the order of their keys."""
    return lambda entries: tuple(entry.value for entry in entries) == expected
