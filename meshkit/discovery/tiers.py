"""Tiers: places where a service runs, nearest first, and how many of them are needed.

The nearest tier is used alone while it is healthy; below its share the next one is added, never
exchanged for it, until one is healthy. Nothing here waits or logs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence

from meshkit.model import Instance, Snapshot, Status

# Envoy begins to spill over below 72 %, but proportionally; Consul's prepared queries wait until
# nobody is left; Finagle doubts a list (panic mode) at half. Here a whole tier is added at once,
# so later than Envoy; at half, those who are left carry double.
# https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority
SHARE = 0.5
MARGIN = 0.2  # more than the share, to be healthy again
HOLD = 5.0  # seconds for which it has to stay so
FORGET = 600.0  # seconds after which a smaller fleet counts as meant


class Health:
    """Whether a tier suffices; falls at once, and rises only for good.

    It remembers how many there were when it fell: a registry forgets a crashed instance after a
    while, and the rest is not healthy by that. Nor do the corpses of those who were replaced
    count against it once it has risen.

    Attributes:
        healthy: the judgement.
        due: when to judge again though nothing has changed, on the clock of ``now``.
    """

    def __init__(self, share: float) -> None:
        self.healthy = True
        self.due = math.inf
        self._share = share
        self._known = 0.0  # at the last look
        self._wanted: float | None = None  # when it fell
        self._fell_at = 0.0
        self._well_since: float | None = None

    def judge(self, up: int, known: float, *, now: float) -> bool:
        """Return whether it suffices.

        Args:
            up: instances that can be called.
            known: instances that there should be.
            now: seconds, of any clock that only goes forward.
        """
        self.due = math.inf
        if self.healthy:
            self._judge_healthy(up, known, now)
        else:
            self._judge_fallen(up, known, now)
        self._known = known
        return self.healthy

    def _judge_healthy(self, up: int, known: float, now: float) -> None:
        expected = known if self._wanted is None else min(known, self._wanted)
        if self._wanted is not None and known <= self._wanted:
            self._wanted = None
        if up == 0 or up < self._share * expected:
            self.healthy = False
            self._wanted = expected or self._known
            self._fell_at = now
            self._well_since = None

    def _judge_fallen(self, up: int, known: float, now: float) -> None:
        remembered = now - self._fell_at < FORGET
        expected = self._wanted if remembered and self._wanted is not None else known
        if up == 0 or up < min(1.0, self._share + MARGIN) * expected:
            self._well_since = None
            self.due = self._fell_at + FORGET if remembered and up else math.inf
            return
        if self._well_since is None:
            self._well_since = now
        if now - self._well_since >= HOLD:
            self.healthy = True
            self._wanted = expected
        else:
            self.due = self._well_since + HOLD


@dataclasses.dataclass(frozen=True, slots=True)
class Tier:
    """One place's instances at one moment.

    Attributes:
        name: for people, as in "own datacenter" or "dc2".
        snapshot: its list, None while it is unknown.
        pending: a list that is unknown may still come soon; nobody has said that it can't.
    """

    name: str
    snapshot: Snapshot | None
    pending: bool = False

    @property
    def up(self) -> tuple[Instance, ...]:
        """Those that may be called."""
        return self.snapshot.up if self.snapshot is not None else ()

    @property
    def known(self) -> int:
        """How many there should be; one that leaves, or has not begun, is not missed."""
        listed = self.snapshot.instances if self.snapshot is not None else ()
        return sum(each.status in (Status.UP, Status.DOWN) for each in listed)

    def describe(self, aside: Collection[str]) -> str:
        """Say how it is."""
        up = sum(each.id not in aside for each in self.up)
        return f"{self.name} ({up} of {self.known} up)"


def needed(
    tiers: Sequence[Tier], health: dict[str, Health], aside: Collection[str], *, now: float
) -> int | None:
    """Return how many of the tiers to use, or None while that can't be told yet."""
    judged = [_judge(tier, health[tier.name], aside, now) for tier in tiers]
    anybody = False
    for number, (tier, healthy) in enumerate(zip(tiers, judged, strict=True), start=1):
        if tier.pending and not anybody:
            return None
        if healthy:
            return number
        anybody = anybody or bool(tier.up)
    return len(tiers) if any(tier.snapshot is not None for tier in tiers) else None


def _judge(tier: Tier, health: Health, aside: Collection[str], now: float) -> bool:
    if tier.snapshot is None:  # unknown is not empty
        return False
    return health.judge(sum(each.id not in aside for each in tier.up), tier.known, now=now)


def merge(service: str, tiers: Iterable[Tier], *, revision: int) -> Snapshot:
    """Return the tiers' lists as one; it is as old as the oldest."""
    known = [tier.snapshot for tier in tiers if tier.snapshot is not None]
    found = {each.id: each for snapshot in reversed(known) for each in snapshot.instances}
    return Snapshot(
        service=service,
        instances=tuple(found[instance_id] for instance_id in sorted(found)),
        revision=revision,
        stale=any(each.stale for each in known),
        read_at=min(each.read_at for each in known),
    )
