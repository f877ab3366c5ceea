"""What is remembered of an instance that was set aside."""

from __future__ import annotations

import dataclasses
import enum
import math

from meshkit.discovery.ejection.policy import EjectionPolicy


class Reason(enum.Enum):
    """Why an instance was set aside."""

    REFUSED = "refused"  # no connection could be made
    WRONG = "wrong"  # somebody else answered for it
    DRAINING = "draining"  # it said that it is leaving
    FAILURES = "failures"  # so many calls in a row failed
    SUCCESS_RATE = "success rate"  # it fails more often than the others
    LATENCY = "latency"  # it is slower than the others


# These surely can't be called, and may always be avoided while anybody else is there. For the
# others the judgement may be wrong, so that only a share is set aside.
ABSENT = frozenset({Reason.REFUSED, Reason.WRONG, Reason.DRAINING})
COMPARED = frozenset({Reason.SUCCESS_RATE, Reason.LATENCY})
TEXT = {
    Reason.REFUSED: "it refused a connection",
    Reason.WRONG: "somebody else answered for it",
    Reason.DRAINING: "it is leaving",
    Reason.FAILURES: "its calls failed in a row",
    Reason.SUCCESS_RATE: "its calls fail more often than the others'",
    Reason.LATENCY: "it is much slower than the others",
}
DOUBLINGS = 32  # that are counted; the pause has long stopped growing


class Stage(enum.Enum):
    """Where it is on its way back."""

    PAUSED = "paused"
    PROBED = "being probed"
    READY = "ready for a trial"
    TRIED = "on trial"
    BACK = "back"


@dataclasses.dataclass(slots=True, eq=False)
class Record:
    """One instance's record.

    Attributes:
        reason: the last one.
        stage: see :class:`Stage`.
        until: when the pause, or the time of a trial, ends (on the clock of ``now``).
        slowest: seconds that a trial may take to be good.
        row: times in a row, one less for each interval for which it was back.
        times: times in all.
        since: when it was set aside.
    """

    reason: Reason
    stage: Stage = Stage.BACK
    until: float = math.inf
    slowest: float = math.inf
    row: int = 0
    times: int = 0
    since: float = 0.0
    _back_since: float = 0.0

    @property
    def away(self) -> bool:
        """Whether it has not come back yet."""
        return self.stage is not Stage.BACK

    def eject(self, reason: Reason, policy: EjectionPolicy, now: float, slowest: float) -> None:
        """Set it aside, which it is not yet."""
        if self.times:
            self.row = max(self.row - int((now - self._back_since) / policy.interval), 0)
        self.times += 1
        self.since = now
        self.slowest = slowest
        self.pause(reason, policy, now)

    def pause(self, reason: Reason, policy: EjectionPolicy, now: float) -> None:
        """Begin the next pause of the row."""
        self.reason = reason
        self.row = min(self.row + 1, DOUBLINGS)
        first = max(policy.pause, policy.interval) if reason in COMPARED else policy.pause
        self.stage = Stage.PAUSED
        self.until = now + min(first * 2.0 ** (self.row - 1), policy.longest_pause)

    def leave(self, now: float, seconds: float) -> None:
        """Set it aside for ``seconds`` because it is leaving; that is no fault."""
        if not self.away:
            self.times += 1
            self.since = now
        self.reason = Reason.DRAINING
        self.stage = Stage.PAUSED
        self.until = now + seconds

    def come_back(self, now: float) -> None:
        """Take it back."""
        self.stage = Stage.BACK
        self.until = math.inf
        self._back_since = now


@dataclasses.dataclass(frozen=True, slots=True)
class Ejected:
    """An instance that is set aside, as people and metrics see it.

    Attributes:
        instance_id: who.
        reason: why.
        stage: what it waits for: "paused", "being probed", "ready for a trial", "on trial".
        seconds: until it may be tried again; 0 when it may.
        times: how often it was set aside since it is listed.
        avoided: no calls go there; False in panic, and for whom the share has no room.
    """

    instance_id: str
    reason: Reason
    stage: str
    seconds: float
    times: int
    avoided: bool
