"""The slices that a selector meets, kept current: list, then watch from the list's version on."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncGenerator, Sequence

from meshkit.registry.kubernetes import failures
from meshkit.registry.kubernetes.api import Api, Event, Slice
from meshkit.registry.kubernetes.failures import Expired

# Seconds that one watch lasts. Short enough to bound what a server that hangs, or a connection that
# is dead, can hide: on a quiet watch nothing comes, or a bookmark about once a minute.
WATCH = 60
JITTER = 6
# A watch that ends sooner than in this part of its time was ended by a server that stops.
SHORT = 0.5


class Following:
    """Follows one selector, once.

    The next watch goes on where the last one has ended in order. After anything else, also a
    server that stops, it has to be listed again: another server may count otherwise.
    """

    def __init__(self, api: Api, selector: str) -> None:
        self._api = api
        self._selector = selector
        self._found: dict[str, Slice] = {}
        self._version = ""
        self._proven = True  # whether a watch from the last list on was of use

    async def changes(self) -> AsyncGenerator[tuple[Slice, ...], None]:
        """Yield all slices at once, and again after each change. Raises as :class:`Api` does."""
        while True:
            listing = await self._api.read(self._selector)
            self._found = {_name(self._api, each): each for each in listing.slices}
            self._version, self._proven = listing.version, False
            yield tuple(self._found.values())
            try:
                while True:
                    async with contextlib.aclosing(self._watch()) as changed:
                        async for found in changed:
                            yield found
            except Expired:
                if not self._proven:  # the list itself was too old: to ask again would never end
                    raise

    async def _watch(self) -> AsyncGenerator[tuple[Slice, ...], None]:
        """Watch once, for as long as a watch lasts."""
        seconds = WATCH + random.randint(-JITTER, JITTER)  # noqa: S311 - no secret
        started = time.monotonic()
        watch = self._api.watch(self._selector, self._version, seconds=seconds)
        async with contextlib.aclosing(watch) as batches:
            async for events in batches:
                if self._take(events):
                    yield tuple(self._found.values())
        lasted = time.monotonic() - started
        if lasted < seconds * SHORT:
            raise failures.ended_early(self._api.server, lasted)
        self._proven = True

    def _take(self, events: Sequence[Event]) -> bool:
        """Note what has happened; return whether any slice has changed."""
        changed = False
        for event in events:
            if event.kind == "ERROR":
                raise self._api.failure(event)
            version = _text(self._api, event.object, "resourceVersion")
            if event.kind in ("ADDED", "MODIFIED"):
                self._found[_name(self._api, event.object)] = event.object
                changed = True
            elif event.kind == "DELETED":
                changed |= self._found.pop(_name(self._api, event.object), None) is not None
            elif event.kind != "BOOKMARK":
                raise self._api.unreadable()
            self._version, self._proven = version, True
        return changed


def _name(api: Api, found: Slice) -> str:
    return _text(api, found, "name")


def _text(api: Api, found: Slice, field: str) -> str:
    try:
        value = found["metadata"][field]
    except (KeyError, TypeError):
        raise api.unreadable() from None
    if not isinstance(value, str):
        raise api.unreadable()
    return value
