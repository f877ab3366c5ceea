"""The key-value store on ZooKeeper: one folder, a node for each key.

A key's revision is the number of the transaction that wrote it last (mzxid), which no other
write has. ZooKeeper itself compares a node's version only, and that begins anew when the node
does. So the folder's own version counts all that come and go: a write that depends on what is
there fails when it has moved since.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import quote, unquote

from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError

from meshkit.errors import ConfigError
from meshkit.registry.kv import ABSENT, Entry, KeyValue, check_key, check_value
from meshkit.registry.zookeeper.folder import Folder
from meshkit.registry.zookeeper.nodes import ensure
from meshkit.registry.zookeeper.session import Session
from meshkit.registry.zookeeper.sessions import Sessions

log = logging.getLogger("meshkit.zookeeper")


class ZooKeeperKeyValue(KeyValue):
    """See the module. It ends with the registry whose sessions it uses."""

    propagation = 0.5

    def __init__(self, sessions: Sessions, path: str) -> None:
        self._sessions = sessions
        self._path = path
        self._warned: set[str] = set()

    async def get(self, key: str) -> Entry | None:
        path = self._node(key)
        async with self._sessions.within() as session:
            await session.call("sync", path)  # the server that we read from may be behind
            try:
                data, facts = await session.call("get", path)
            except NoNodeError:
                return None
        return _entry(key, data, facts)

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        async with self._sessions.within() as session:
            await session.call("sync", self._path)
            return _sorted(await self._folder(session, prefix, watch=False).read())

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> Entry | None:
        path, value = self._node(key), bytes(check_value(key, value))
        async with self._sessions.within() as session:
            while True:
                try:
                    if expect is None:
                        facts = await self._overwrite(session, path, value)
                    elif expect == ABSENT:
                        facts = await self._create(session, path, value)
                    else:
                        facts = await self._replace(session, path, value, expect)
                except BadVersionError:  # another key has come or gone meanwhile
                    continue
                return Entry(key=key, value=value, revision=facts.mzxid) if facts else None

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        path = self._node(key)
        async with self._sessions.within() as session:
            while True:
                try:
                    return await self._remove(session, path, expect)
                except NoNodeError:
                    return False
                except BadVersionError:  # this key was written, or another one has come or gone
                    continue

    async def watch(self, prefix: str = "") -> AsyncGenerator[tuple[Entry, ...], None]:
        session = await self._sessions.current()
        seen: tuple[Entry, ...] | None = None
        with self._folder(session, prefix, watch=True) as folder:
            while True:
                folder.changed.clear()
                found = _sorted(await folder.read())
                if found != seen:
                    yield (seen := found)
                await folder.news()

    async def _overwrite(self, session: Session, path: str, value: bytes) -> Any:
        while True:
            try:
                return await session.call("set", path, value)
            except NoNodeError:
                if facts := await self._create(session, path, value):
                    return facts

    async def _create(self, session: Session, path: str, value: bytes) -> Any:
        """Return the new node's facts, or None when there is one already."""
        while True:
            try:
                return await session.commit(
                    path,
                    lambda change: change.set_data(self._path, b""),
                    lambda change: change.create(path, b""),
                    lambda change: change.set_data(path, value),  # this one answers with facts
                )
            except NodeExistsError:
                return None
            except NoNodeError:
                await ensure(session, self._path)

    async def _replace(self, session: Session, path: str, value: bytes, expect: int) -> Any:
        """Return the node's new facts, or None when ``expect`` is not its revision."""
        at = await self._count(session)
        facts = await session.call("exists", path)
        if facts is None or facts.mzxid != expect:
            return None
        try:
            return await session.commit(
                path,
                lambda change: change.check(self._path, at),
                lambda change: change.set_data(path, value, version=facts.version),
            )
        except NoNodeError:
            return None

    async def _remove(self, session: Session, path: str, expect: int | None) -> bool:
        at = version = -1
        if expect is not None:
            at = await self._count(session)
            facts = await session.call("exists", path)
            if facts is None or facts.mzxid != expect:
                return False
            version = facts.version
        await session.commit(
            path,
            lambda change: change.set_data(self._path, b"", version=at),
            lambda change: change.delete(path, version=version),
        )
        return True

    async def _count(self, session: Session) -> int:
        """Return the folder's version; any will do when there is none."""
        await session.call("sync", self._path)
        facts = await session.call("exists", self._path)
        return facts.version if facts else -1

    def _folder(self, session: Session, prefix: str, *, watch: bool) -> Folder[Entry]:
        return Folder(
            session,
            self._path,
            lambda name, data, facts: _entry(unquote(name), data, facts),
            wanted=lambda name: self._is_key(name) and unquote(name).startswith(prefix),
            watch=watch,
        )

    def _node(self, key: str) -> str:
        return f"{self._path}/{quote(check_key(key), safe='')}"

    def _is_key(self, name: str) -> bool:
        key = unquote(name)
        try:
            if quote(check_key(key), safe="") == name:
                return True
        except ConfigError:
            pass
        if name not in self._warned:
            self._warned.add(name)
            log.warning("%s/%s in ZooKeeper is no key and left out", self._path, name)
        return False


def _entry(key: str, data: bytes | None, facts: Any) -> Entry:
    # A node may have been made without any data.
    return Entry(key=key, value=data or b"", revision=facts.mzxid)


def _sorted(found: dict[str, Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(found.values(), key=lambda each: each.key))
