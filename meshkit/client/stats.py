"""What a client counts."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class CallStats:
    """Counters of one client since it was made.

    Attributes:
        calls: calls made, whatever became of them.
        failed: calls that raised a :class:`~meshkit.errors.CallError` to their caller.
        retried: further attempts, on top of the first one of each call; hedges among them.
        hedged: those of them that began while an earlier attempt was still going on.
        won: those of them whose answer came first.
        failures: failed attempts by class, as in ``{"refused": 3, "503": 1}``: the values of
            :class:`~meshkit.discovery.balancing.Outcome`, and statuses.
    """

    calls: int = 0
    failed: int = 0
    retried: int = 0
    hedged: int = 0
    won: int = 0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, other: CallStats) -> None:
        """Add what another client has counted."""
        self.calls += other.calls
        self.failed += other.failed
        self.retried += other.retried
        self.hedged += other.hedged
        self.won += other.won
        for failure, count in tuple(other.failures.items()):
            self.failures[failure] = self.failures.get(failure, 0) + count

    def note(self, failure: str) -> None:
        """Count a failed attempt."""
        self.failures[failure] = self.failures.get(failure, 0) + 1
