"""Instances set aside for what callers saw of them, without waiting for the registry."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection

FIRST = 1.0
LONGEST = 30.0
LIMIT = 32  # times in a row that are counted; the pause has long stopped growing


@dataclasses.dataclass(slots=True)
class Ejection:
    """One instance's record: how often in a row, and until when (on the given clock)."""

    times: int = 0
    until: float = 0.0


class Ejections:
    """Who is set aside, and until when. The pause doubles with each time in a row.

    After the pause an instance is tried again by an ordinary call: one that was refused costs
    the caller nothing but a retry.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, Ejection] = {}
        self.next_return = math.inf  # when the earliest pause ends
        self._listeners: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._records)

    def eject(self, instance_id: str, *, seconds: float | None = None) -> None:
        """Set the instance aside, for ``seconds`` or for the next pause in its row.

        Calls that were under way together fail together: while it is aside it counts once.
        """
        now = self._clock()
        record = self._records.setdefault(instance_id, Ejection())
        if seconds is None and record.until > now:
            return
        record.times = min(record.times + 1, LIMIT)
        pause = min(FIRST * 2 ** (record.times - 1), LONGEST) if seconds is None else seconds
        record.until = max(record.until, now + pause)
        self._schedule()
        self._tell()

    def forgive(self, instance_id: str) -> bool:
        """Forget the record after a good answer. True when there was one."""
        known = self._records.pop(instance_id, None) is not None
        if known:
            self._schedule()
            self._tell()
        return known

    def keep(self, instance_ids: Collection[str]) -> None:
        """Forget all but these: an instance that left takes its record along."""
        self._records = {key: value for key, value in self._records.items() if key in instance_ids}
        self._schedule()

    def aside(self) -> set[str]:
        """Return the ids that are set aside now."""
        self._schedule()
        return self.look()

    def look(self) -> set[str]:
        """Return the same to an onlooker, who does not count as having asked."""
        now = self._clock()
        return {key for key, record in self._records.items() if record.until > now}

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever an instance was set aside or forgiven."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def due(self) -> bool:
        """Whether a pause has ended since :meth:`aside` was last asked."""
        return self._clock() >= self.next_return

    def _schedule(self) -> None:
        now = self._clock()
        ends = (record.until for record in self._records.values() if record.until > now)
        self.next_return = min(ends, default=math.inf)
