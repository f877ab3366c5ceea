"""One member's watch, begun anew with pauses whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

from meshkit.backoff import Backoff
from meshkit.errors import RegistryError, RegistryUnavailable
from meshkit.registry.several.member import Member, joined

RETRY_CAP = 5.0
FIRST_LIMIT = 2.0  # seconds that a silent member may hold up the first list of all

log = logging.getLogger("meshkit.registry")

Value = TypeVar("Value")


class Follower(Generic[Value]):
    """Follows one member for the watch of them all.

    Attributes:
        value: what it listed last, None when it never has; it outlives the member's absence.
        error: why it can't be followed at the moment, or None.
        live: whether ``value`` is the member's present state.
    """

    def __init__(
        self,
        member: Member,
        what: str,
        watch: Callable[[], AsyncGenerator[Value, None]],
        *,
        last: Value | None,
        changed: asyncio.Event,
    ) -> None:
        self.member = member
        self.value = last
        self.error: RegistryError | None = None
        self.live = False
        self._what = what
        self._watch = watch
        self._changed = changed

    @property
    def known(self) -> bool:
        """Whether it has listed or failed since this watch began."""
        return self.live or self.error is not None

    async def run(self) -> None:
        """Follow until cancelled."""
        backoff = Backoff(cap=RETRY_CAP)
        try:
            while True:
                try:
                    await self._follow(backoff)
                except Exception as error:  # noqa: BLE001 - logged, and tried again
                    if _is_cancelled():  # which may end in an engine's error instead
                        return
                    self._failed(error)
                await asyncio.sleep(backoff.next())
        finally:
            self.member.forget(self._what)
            self._changed.set()

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, RegistryError):
            log.error("%s failed unexpectedly in %s", self._what, self._url, exc_info=error)
            error = RegistryError(f"{self._url}: {error!r}")
        self.lose(error)

    def lose(self, error: RegistryError) -> None:
        """Take it for away until it lists again."""
        self.error, self.live = error, False
        self.member.failed(self._what, error)
        self._changed.set()

    async def _follow(self, backoff: Backoff) -> None:
        async with contextlib.aclosing(self._watch()) as watch:
            async for value in watch:
                backoff.reset()
                self.value, self.error, self.live = value, None, True
                self.member.works(self._what)
                self._changed.set()
        raise RegistryUnavailable(f"{self._url} has ended the watch")

    @property
    def _url(self) -> str:
        return self.member.registry.url


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def following(
    followers: list[Follower[Value]], changed: asyncio.Event, running: set[asyncio.Task[None]]
) -> AsyncGenerator[None, None]:
    """Follow them all; yield when all have listed or failed once, and after each change.

    Args:
        followers: one for each member.
        changed: set by them.
        running: holds their tasks meanwhile; who cancels those ends the watch.

    Raises:
        RegistryError: none of them can be followed.
    """
    tasks = [asyncio.create_task(each.run()) for each in followers]
    running.update(tasks)
    try:
        await _first(followers, changed)
        while True:
            changed.clear()
            if all(task.done() for task in tasks):
                raise RegistryUnavailable("the registries are closed")
            if any(each.live for each in followers):
                yield
            elif len(errors := [each.error for each in followers if each.error]) == len(followers):
                raise joined(errors)
            await changed.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        running.difference_update(tasks)


async def _first(followers: list[Follower[Value]], changed: asyncio.Event) -> None:
    """Wait until each is known, at most so long that a hung one does not block the start."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_LIMIT):
            while not all(each.known for each in followers):
                changed.clear()
                await changed.wait()
    if any(each.live for each in followers):
        for each in followers:
            if not each.known:
                reason = f"{each.member.registry.url}: no list within {FIRST_LIMIT:.0f} s"
                each.lose(RegistryUnavailable(reason))
