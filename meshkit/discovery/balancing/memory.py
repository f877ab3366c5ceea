"""What is known of instances, by id: a list that changes does not wipe it out."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

KEEP = 600.0  # seconds after which somebody who left is forgotten
MOST = 256  # of those who left, whatever their age; ids are new with each process

State = TypeVar("State")
Clock = Callable[[], float]


class Memory(Generic[State]):
    """Keeps one state for each instance, and for a while of those that have left the list.

    An instance that is set aside, or whose registry flaps, comes back as what it was.

    Args:
        make: makes the state of an instance that is not known, from its id.
        clock: seconds, of any clock that only goes forward.
    """

    def __init__(self, make: Callable[[str], State], clock: Clock = time.monotonic) -> None:
        self._make = make
        self._clock = clock
        self._states: dict[str, State] = {}
        self._left: dict[str, float] = {}  # id and when, the longest gone first

    def __len__(self) -> int:
        return len(self._states)

    def update(self, ids: Collection[str]) -> list[State]:
        """Return the states of these, in their order; forget who has long left."""
        now = self._clock()
        wanted = set(ids)
        for gone in self._states.keys() - wanted - self._left.keys():
            self._left[gone] = now
        for back in wanted & self._left.keys():
            del self._left[back]
        kept = [each for each, since in self._left.items() if now - since < KEEP]
        kept = kept[-MOST:]
        for forgotten in self._left.keys() - kept:
            del self._left[forgotten], self._states[forgotten]
        new = {each: self._make(each) for each in ids if each not in self._states}
        self._states.update(new)
        return [self._states[each] for each in ids]
