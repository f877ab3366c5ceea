"""Who has left: what a member that is followed says, against the last list of one that is away."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Collection

from meshkit.model import Snapshot

# A registry that hangs or is cut off is noticed that late; its list may have been old by then.
NOTICED = 30.0


class Departures:
    """The instances of one service that have left the list of a member before others' lists.

    Without it, whoever dies while one of several registries is away would be listed for as long as
    that lasts.
    """

    def __init__(self) -> None:
        self._left_at: dict[str, float] = {}  # seconds since the epoch, by instance id

    def note(self, before: Snapshot | None, now: Snapshot) -> None:
        """Note what one member's watch has seen.

        Args:
            before: None for the watch's first list, which says nothing of those who are not in it:
                the member may have lost its memory.
            now: the list after it.
        """
        listed = {each.id for each in now.instances}
        earlier = {each.id for each in before.instances} if before is not None else set()
        for instance_id in earlier - listed:
            self._left_at[instance_id] = time.time()
        for instance_id in listed - earlier:
            self._left_at.pop(instance_id, None)

    def keep(self, instance_ids: Collection[str]) -> None:
        """Forget all but these."""
        self._left_at = {key: at for key, at in self._left_at.items() if key in instance_ids}

    def without(self, snapshot: Snapshot) -> Snapshot:
        """Return the list; that of a member that is away without those who have left since then."""
        if not snapshot.stale or not self._left_at:
            return snapshot
        since = snapshot.read_at - NOTICED
        stayed = (
            each for each in snapshot.instances if self._left_at.get(each.id, -math.inf) < since
        )
        return dataclasses.replace(snapshot, instances=tuple(stayed))
