"""Who is set aside for what callers saw of it, without waiting for the registry."""

from __future__ import annotations

import asyncio
import collections
import functools
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from meshkit.discovery.balancing.base import Done, Outcome
from meshkit.discovery.ejection.outliers import Tally, avoidable, laggards, unreliable
from meshkit.discovery.ejection.policy import EjectionPolicy
from meshkit.discovery.ejection.record import ABSENT, TEXT, Ejected, Reason, Record, Stage
from meshkit.model import Instance, Status

DRAIN_PAUSE = 30.0  # a leaving instance is off the list long before
TRIAL = 30.0  # seconds after which a trial that has not ended is given up for another one
OK = Outcome.OK  # looking up members of an enum is slow before Python 3.12
AT_ONCE = {Outcome.REFUSED: Reason.REFUSED, Outcome.WRONG: Reason.WRONG}
FAILURES = frozenset({Outcome.FAILED, Outcome.TIMEOUT})

log = logging.getLogger("meshkit.discovery")

Later = Callable[[float, Callable[[], None]], Any]  # returns what has cancel()


class Ejections:
    """The records of one service's instances. No I/O; belongs to one event loop.

    Each call is counted, which is all that is done per call; the comparisons are made at
    intervals. Whom to avoid is decided when something has changed and read as :attr:`avoided`.

    The way back: after a pause, which doubles each time in a row, an instance is probed (by
    whoever asks :meth:`to_probe`), then tried with one call (:meth:`trial`), and only a good
    answer to that brings it back. Any step that fails begins the next pause.

    Args:
        policy: see there.
        service: its name, for the log.
        clock: seconds, only forward.
        later: calls a function after so many seconds, as an event loop's ``call_later``.

    Attributes:
        policy: the policy.
        avoided: ids of those to avoid now, as long as anybody else is there.
        panic: so many deserve to be avoided that only those are that surely can't be called.
        next_return: when one has to be probed or tried, on the clock; ``math.inf`` if nobody.
        ejected: how often instances were set aside, by reason.
    """

    def __init__(
        self,
        policy: EjectionPolicy | None = None,
        *,
        service: str = "",
        clock: Callable[[], float] = time.monotonic,
        later: Later | None = None,
    ) -> None:
        self.policy = policy or EjectionPolicy()
        self.avoided: frozenset[str] = frozenset()
        self.panic = False
        self.next_return = math.inf
        self.ejected: collections.Counter[Reason] = collections.Counter()
        self._service = service
        self._clock = clock
        self._later = later or _loop_later
        self._timer: Any = None
        self._tallies: dict[str, Tally] = {}
        self._records: dict[str, Record] = {}
        self._up: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []

    # --- what calls came to -----------------------------------------------------------------------

    def observe(self, instance_id: str, outcome: Outcome, seconds: float) -> None:
        """Learn how a call to an instance ended, and how long it took."""
        tally = self._tallies.get(instance_id)
        if tally is None:
            tally = self._begin(instance_id)
        if outcome is OK:
            tally.answered += 1
            tally.seconds += seconds
            tally.row = 0
            if self.avoided:
                self._answered(instance_id)
        else:
            self._count(tally, instance_id, outcome)

    def _begin(self, instance_id: str) -> Tally:
        if self._timer is None:
            self._timer = self._later(self.policy.interval, self._compare)
        tally = self._tallies[instance_id] = Tally()
        return tally

    def _answered(self, instance_id: str) -> None:
        """Take back one that was thought not to be there: it is, as its answer shows."""
        record = self._records.get(instance_id)
        if record is not None and record.away and record.reason in AT_ONCE.values():
            self._take_back(instance_id, record)

    def _count(self, tally: Tally, instance_id: str, outcome: Outcome) -> None:
        if outcome in FAILURES:
            tally.failed += 1
            tally.row += 1
            if 0 < self.policy.failures <= tally.row:
                tally.row = 0
                self.eject(instance_id, Reason.FAILURES)
        elif outcome is Outcome.SHED:
            tally.failed += 1
        elif outcome in AT_ONCE:
            self.eject(instance_id, AT_ONCE[outcome])
        elif outcome is Outcome.DRAINING:
            self.leave(instance_id)

    def _compare(self) -> None:
        """Judge an interval; goes on as long as there are calls."""
        self._timer = None
        compared = {
            key: tally
            for key, tally in self._tallies.items()
            if key in self._up and not self._is_away(key)
        }
        for instance_id in unreliable(compared, self.policy):
            self.eject(instance_id, Reason.SUCCESS_RATE)
        for instance_id, slowest in laggards(compared, self.policy).items():
            self.eject(instance_id, Reason.LATENCY, slowest=slowest)
        if not any(tally.calls for tally in self._tallies.values()):
            self._tallies.clear()  # the next call begins anew
            return
        for tally in self._tallies.values():
            tally.begin()
        self._timer = self._later(self.policy.interval, self._compare)

    # --- setting aside ----------------------------------------------------------------------------

    def eject(self, instance_id: str, reason: Reason, *, slowest: float = math.inf) -> None:
        """Set the instance aside.

        Calls that were under way together fail together: while it is aside they count once.
        """
        now = self._clock()
        record = self._records.setdefault(instance_id, Record(reason))
        if not record.away:
            record.eject(reason, self.policy, now, slowest)
            self._note(instance_id, record, now)
        elif reason in ABSENT and record.reason not in ABSENT:
            record.reason = reason
        else:
            return
        self._changed()

    def leave(self, instance_id: str, seconds: float = DRAIN_PAUSE) -> None:
        """Set the instance aside because it is leaving."""
        now = self._clock()
        record = self._records.setdefault(instance_id, Record(Reason.DRAINING))
        if record.away and record.reason is Reason.DRAINING:
            return
        record.leave(now, seconds)
        self._note(instance_id, record, now)
        self._changed()

    def keep(self, instances: Iterable[Instance]) -> None:
        """Forget all but these: an instance that left takes its record along."""
        listed = tuple(instances)
        ids = {each.id for each in listed}
        self._up = frozenset(each.id for each in listed if each.status is Status.UP)
        self._records = {key: record for key, record in self._records.items() if key in ids}
        self._tallies = {key: tally for key, tally in self._tallies.items() if key in ids}
        self._decide()

    def look(self) -> set[str]:
        """Return all that deserve to be set aside, whether or not there is room for them."""
        return {key for key, record in self._records.items() if record.away}

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever an instance was set aside or taken back."""
        self._listeners.append(listener)

    def describe(self) -> tuple[Ejected, ...]:
        """Return those that are set aside, in the order in which it happened."""
        now = self._clock()
        return tuple(
            Ejected(
                instance_id=key,
                reason=record.reason,
                stage=record.stage.value,
                seconds=max(record.until - now, 0.0) if record.stage is Stage.PAUSED else 0.0,
                times=record.times,
                avoided=key in self.avoided,
            )
            for key, record in self._in_order()
        )

    def close(self) -> None:
        """Stop comparing. Closing twice is safe."""
        self._later = _never
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the way back -----------------------------------------------------------------------------

    def due(self) -> bool:
        """Whether somebody has to be probed or tried."""
        return self._clock() >= self.next_return

    def waiting(self) -> list[str]:
        """Return the ids of those whose pause has ended, the longest away first."""
        now = self._clock()
        return [key for key, record in self._in_order() if record.until <= now]

    def to_probe(self, instance_id: str) -> bool:
        """Whether it has to be probed before it is tried."""
        return self._records[instance_id].stage is Stage.PAUSED

    def probing(self, instance_id: str) -> None:
        """Note that a probe of it has begun; its end is told to :meth:`probed`."""
        record = self._records[instance_id]
        record.stage, record.until = Stage.PROBED, math.inf
        self._schedule()

    def probed(self, instance_id: str, *, good: bool) -> None:
        """Learn how a probe ended."""
        record = self._records.get(instance_id)
        if record is None or record.stage is not Stage.PROBED:
            return  # gone, or set aside anew
        if good:
            record.stage, record.until = Stage.READY, self._clock()
        else:
            record.pause(record.reason, self.policy, self._clock())
        self._schedule()

    def trial(self, instance_id: str) -> Done:
        """Let one call go to it; returns what to call with the call's end."""
        record = self._records[instance_id]
        record.stage, record.until = Stage.TRIED, self._clock() + TRIAL
        self._schedule()
        return functools.partial(self._tried, instance_id, record)

    def _tried(self, instance_id: str, record: Record, outcome: Outcome, seconds: float) -> None:
        if self._records.get(instance_id) is not record or record.stage is not Stage.TRIED:
            return
        now = self._clock()
        if outcome is OK and seconds <= record.slowest:
            self._take_back(instance_id, record)
        elif outcome is Outcome.DRAINING:
            self.leave(instance_id)
        elif outcome is Outcome.CANCELLED:
            record.stage, record.until = Stage.READY, now
            self._schedule()
        else:
            record.pause(AT_ONCE.get(outcome, record.reason), self.policy, now)
            self._changed()

    def _take_back(self, instance_id: str, record: Record) -> None:
        record.come_back(self._clock())
        if (tally := self._tallies.get(instance_id)) is not None:
            tally.row = 0
            tally.begin()  # what it was set aside for is over
        log.info("%s: %s is called again", self._service, instance_id)
        self._changed()

    # ----------------------------------------------------------------------------------------------

    def _is_away(self, instance_id: str) -> bool:
        record = self._records.get(instance_id)
        return record is not None and record.away

    def _in_order(self) -> list[tuple[str, Record]]:
        away = [(key, record) for key, record in self._records.items() if record.away]
        return sorted(away, key=lambda each: each[1].since)

    def _note(self, instance_id: str, record: Record, now: float) -> None:
        self.ejected[record.reason] += 1
        why, seconds = TEXT[record.reason], record.until - now
        log.info("%s: %s is set aside for %.3g s: %s", self._service, instance_id, seconds, why)

    def _changed(self) -> None:
        self._decide()
        for listener in self._listeners:
            listener()

    def _decide(self) -> None:
        ordered = self._in_order()
        absent = [key for key, record in ordered if record.reason in ABSENT]
        suspects = [key for key, record in ordered if record.reason not in ABSENT]
        self.avoided, panic = avoidable(absent, suspects, self._up, self.policy)
        if panic and not self.panic:
            log.warning(
                "%s: %d of %d instances deserve to be set aside, so none of them is",
                self._service,
                len(suspects),
                len(self._up),
            )
        self.panic = panic
        self._schedule()

    def _schedule(self) -> None:
        ends = (
            record.until
            for key, record in self._records.items()
            if record.away and key in self._up  # nobody could try the others
        )
        self.next_return = min(ends, default=math.inf)


def _loop_later(seconds: float, function: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, function)


def _never(_seconds: float, _function: Callable[[], None]) -> None:
    return None
