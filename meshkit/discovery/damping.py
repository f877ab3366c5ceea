"""Doubting a list that shrank suddenly: a registry that lost its memory is not a truth.

Pure functions over snapshots, and a memory of who is missing. Absence is doubted, and so is a
lapse: a registry that hung for a while finds everybody overdue. A status that an instance itself
has declared is taken at its word.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable

from meshkit.model import Instance, Snapshot


def missing(old: Snapshot, new: Snapshot) -> tuple[Instance, ...]:
    """Return the callable instances of ``old`` that ``new`` does not list, or only as lapsed."""
    listed = {instance.id for instance in new.instances if not instance.lapsed}
    return tuple(instance for instance in old.up if instance.id not in listed)


def is_large_drop(old: Snapshot, new: Snapshot) -> bool:
    """Whether more than half of the callable instances vanished at once."""
    return 2 * len(missing(old, new)) > len(old.up)


def keep(new: Snapshot, lost: Iterable[Instance]) -> Snapshot:
    """Return ``new`` with ``lost`` still in it, as they were."""
    kept = {each.id: each for each in (*new.instances, *lost)}
    return dataclasses.replace(new, instances=tuple(kept[name] for name in sorted(kept)))


class Doubts:
    """Who is missing from a list, and since when: each loss is doubted by itself.

    A large drop is doubted, and while it is, whatever else goes missing. Whoever is listed again
    is forgotten; if it is missing once more, that is another loss.

    Args:
        settle: seconds that a loss has to last before a look can confirm it.
        clock: seconds; simulated in tests.
    """

    def __init__(self, settle: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settle = settle
        self._clock = clock
        self._since: dict[str, float] = {}  # by the id of who is missing

    def __len__(self) -> int:
        return len(self._since)

    @property
    def left(self) -> float:
        """Seconds until the first loss has lasted; infinite when there is none."""
        return min(self._since.values(), default=float("inf")) + self._settle - self._clock()

    def apply(
        self, old: Snapshot, new: Snapshot, *, recovering: bool = False, confirmed: bool = False
    ) -> Snapshot:
        """Return ``new``, with those in it whose loss is doubted.

        Args:
            old: the list in use, with those in it who have been doubted so far.
            new: what the registry says.
            recovering: it has just come back, so that any loss is doubtful.
            confirmed: it says so after a look of its own: losses that have lasted are believed.
        """
        now, lost = self._clock(), missing(old, new)
        since = {each.id: self._since[each.id] for each in lost if each.id in self._since}
        if recovering or since or is_large_drop(old, new):
            since = {each.id: since.get(each.id, now) for each in lost}
        if confirmed:
            since = {name: at for name, at in since.items() if now - at < self._settle}
        self._since = since
        return keep(new, (each for each in lost if each.id in since))
