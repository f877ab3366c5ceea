"""One session after the other: whoever needs one gets the one that lives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from meshkit.errors import RegistryError
from meshkit.registry.zookeeper import failures
from meshkit.registry.zookeeper.options import ZooKeeperOptions
from meshkit.registry.zookeeper.session import LIMIT, Session


class Sessions:
    """Opens a session on use, and another one when it has ended."""

    def __init__(self, options: ZooKeeperOptions) -> None:
        self.options = options
        self.closed = False
        self._current: Session | None = None
        self._ended: set[Session] = set()
        self._ids: set[int] = set()

    async def current(self) -> Session:
        """Return the session, connected. Raises RegistryError when there is none to be had."""
        if self.closed:
            raise failures.closed(self.options)
        if self._current is not None and self._current.error is not None:
            self._retire(self._current)
            self._current = None
        if self._current is None:
            self._current = Session(self.options)
        session = self._current
        await session.connected()
        self._ids.add(session.id)
        return session

    def is_ours(self, session_id: int) -> bool:
        """Whether it is a session of ours, also an earlier one that servers may still know."""
        return session_id in self._ids

    @contextlib.asynccontextmanager
    async def within(self, limit: float = LIMIT) -> AsyncIterator[Session]:
        """Yield the session, and bound this and all that is awaited inside.

        Raises RegistryUnavailable when it takes too long.
        """
        try:
            async with asyncio.timeout(limit):
                yield await self.current()
        except TimeoutError:
            raise failures.too_slow(self.options, limit) from None

    async def aclose(self) -> None:
        """End all sessions. Closing twice is safe."""
        self.closed = True
        error: RegistryError = failures.closed(self.options)
        sessions = {*self._ended, *((self._current,) if self._current else ())}
        await asyncio.gather(*(session.aclose(error) for session in sessions))
        self._ended.clear()

    def _retire(self, session: Session) -> None:
        """Keep an ended session until its threads are gone."""
        self._ended = {each for each in self._ended if not each.gone}
        self._ended.add(session)
