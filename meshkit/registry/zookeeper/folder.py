"""The children of a node with what is in them, read once and then kept current by watches.

kazoo's own recipes for this run callbacks on its threads and hide errors; here the reader asks.
A change of one child costs one read, however many there are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from kazoo.exceptions import NoNodeError

from meshkit.errors import RegistryError
from meshkit.registry.zookeeper.session import AT_ONCE, Session

# Seconds of silence after which a watch makes sure that nothing was kept from it.
MAKE_SURE = 30.0

T = TypeVar("T")
# Takes a child's name, its data and ZooKeeper's facts about it; None leaves it out.
Decode = Callable[[str, bytes, Any], T | None]


class Folder(Generic[T]):
    """Follows a node that may not be there yet, or no longer. A context manager.

    Args:
        session: to read with; when it ends, reading raises its error.
        path: the node.
        decode: makes a value of a child; None reads names only.
        wanted: which names count.
        watch: False reads once, and leaves no watches.
        changed: set whenever :meth:`read` would find something new; may be shared.

    Attributes:
        entries: the children's values by name, as of the last :meth:`read`.
        names: all children's names.
    """

    def __init__(
        self,
        session: Session,
        path: str,
        decode: Decode[T] | None,
        *,
        wanted: Callable[[str], bool] | None = None,
        watch: bool = True,
        changed: asyncio.Event | None = None,
    ) -> None:
        self.path = path
        self.entries: dict[str, T] = {}
        self.names: set[str] = set()
        self.changed = changed or asyncio.Event()
        self._session = session
        self._decode = decode
        self._wanted = wanted
        self._watch = session.notify if watch else None
        self._error: RegistryError | None = None
        # What has to be read again. A mark is removed before the read that it asks for, so that
        # an event which comes meanwhile asks for another.
        self._listed = False
        self._unread: set[str] = set()
        self._doubted = False
        self._changes: dict[str, int] = {}  # by name, the last change that was read

    @property
    def dirty(self) -> bool:
        """Whether :meth:`read` has something to do."""
        return not self._listed or bool(self._unread) or self._error is not None

    async def read(self) -> dict[str, T]:
        """Read what has changed, and return all ``entries``. Raises RegistryError."""
        if self._error is not None:
            raise self._error
        doubted, self._doubted = self._doubted, False
        if doubted or not self._listed:
            self._listed = True
            self._take(await self._list())
        if doubted:
            await self._each(self._compare, self._changes.keys() - self._unread)
        unread, self._unread = self._unread & self.names, set()
        await self._each(self._get, unread)
        return self.entries

    async def news(self) -> None:
        """Wait for a change, or until :meth:`read` has to make sure that there was none.

        Since 3.9.2 and 3.8.4 servers keep events from a session that may not read the node, and
        its watch is used up all the same (ZOOKEEPER-4799). The list would stay old in silence.
        """
        pause = MAKE_SURE * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(pause):
                await self.changed.wait()
        except TimeoutError:
            self._doubted = True

    def on_event(self, path: str) -> None:
        if path == self.path:
            self._listed = False
        elif self._decode is not None:
            self._unread.add(path.rpartition("/")[2])
        else:
            return  # somebody else watches it
        self.changed.set()

    def on_gap(self) -> None:
        self._listed = False
        self._unread = set(self.names)
        self.changed.set()

    def on_end(self, error: RegistryError) -> None:
        self._error = error
        self.changed.set()

    def open(self) -> None:
        """Begin to hear of changes."""
        if self._watch is not None:
            self._session.follow(self.path, self)

    def close(self) -> None:
        """Hear of nothing any more."""
        self._session.unfollow(self)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def _list(self) -> set[str]:
        while True:
            try:
                return set(await self._session.call("get_children", self.path, watch=self._watch))
            except NoNodeError:
                # Nobody has come yet. Only this can be watched for its creation.
                if await self._session.call("exists", self.path, watch=self._watch) is None:
                    return set()

    def _take(self, names: set[str]) -> None:
        if self._wanted is not None:
            names = {name for name in names if self._wanted(name)}
        for gone in self.names - names:
            self.entries.pop(gone, None)
            self._changes.pop(gone, None)
        if self._decode is not None:
            self._unread |= names - self.names
        self.names = names

    async def _each(self, read: Callable[[str], Awaitable[None]], names: set[str]) -> None:
        ordered = sorted(names)
        for first in range(0, len(ordered), AT_ONCE):
            await together(read(name) for name in ordered[first : first + AT_ONCE])

    async def _compare(self, name: str) -> None:
        """Have the child read again if it has changed."""
        facts = await self._session.call("exists", f"{self.path}/{name}")
        if facts is not None and facts.mzxid != self._changes[name]:
            self._unread.add(name)

    async def _get(self, name: str) -> None:
        assert self._decode is not None
        path = f"{self.path}/{name}"
        try:
            data, facts = await self._session.call("get", path, watch=self._watch)
        except NoNodeError:  # gone since its name was read
            self.names.discard(name)
            self._changes.pop(name, None)
            value = None
        else:
            self._changes[name] = facts.mzxid
            value = self._decode(name, data, facts)
        if value is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = value


async def together(reads: Iterable[Any]) -> None:
    """Await all; when one fails, cancel the others and raise."""
    tasks = [asyncio.ensure_future(read) for read in reads]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
