"""How long each kind of request usually takes, so that slow is told from slower than usual."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

FEW = 20  # samples until which a baseline is a plain average
OUTLIER = 8.0  # times the usual at which a single sample is cut, plus the next
GRACE = 0.25
MOST_KINDS = 1000
OTHERS = object()  # stands for all kinds beyond


@dataclasses.dataclass(slots=True)
class Kind:
    """One kind of request: what it usually takes, and what it took in this window."""

    usual: float
    samples: int = 0
    count: int = 0
    total: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """One window of samples: the mean latency and what it usually is, both in seconds."""

    count: int
    latency: float
    usual: float


class Baseline:
    """The usual latency of each kind of request, in windows of samples.

    Kinds (a route, a gRPC method) are kept apart, for a change in the mix of fast and slow ones
    is no overload. Averages, as in Netflix's Gradient2, for a minimum would take every service
    whose answers vary for an overloaded one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._kinds: dict[Hashable, Kind] = {}
        self._touched: list[Kind] = []

    def add(self, kind: Hashable, latency: float, *, ok: bool) -> None:
        """Take in one request; one that failed never counts as fast."""
        known = self._kinds.get(kind)
        if known is None:
            if not ok:
                return
            known = self._learn(kind, latency)
        usual = known.usual
        if latency > usual:
            # One stuck call among many is no overload.
            if latency > (most := usual * OUTLIER + GRACE):
                latency = most
        elif not ok:
            return
        if known.count == 0:
            self._touched.append(known)
        known.count += 1
        known.total += latency
        self.count += 1

    def window(self) -> Window:
        """Return what this window has seen so far; it has at least one sample."""
        latency = sum(kind.total for kind in self._touched)
        usual = sum(kind.usual * kind.count for kind in self._touched)
        return Window(self.count, latency / self.count, usual / self.count)

    def learn(self, rise: float, fall: float) -> None:
        """Move what is usual towards this window: by ``rise`` of the way up, ``fall`` down."""
        for kind in self._touched:
            mean = kind.total / kind.count
            kind.samples += kind.count
            young = kind.count / kind.samples if kind.samples < FEW else 0.0
            share = rise if mean > kind.usual else fall
            kind.usual += (mean - kind.usual) * min(1.0, max(young, share))

    def clear(self) -> None:
        """Begin a new window."""
        for kind in self._touched:
            kind.count = 0
            kind.total = 0.0
        self._touched.clear()
        self.count = 0

    def _learn(self, kind: Hashable, latency: float) -> Kind:
        if len(self._kinds) >= MOST_KINDS:
            kind = OTHERS
        return self._kinds.setdefault(kind, Kind(latency))
