"""Zones: which part of the calls stays in the own one, and who gets the rest. Pure.

Callers are taken to be spread evenly over the zones, so that a zone has its part to carry when it
has its part of the capacity. What it lacks goes to those that have more than theirs. The rule is
that of Envoy's zone-aware routing, reckoned by capacity:
https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/zone_aware
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Mapping, Sequence

from meshkit.discovery.tiers import Tier
from meshkit.model import Instance

ALL = 1.0 - 1e-9  # of the calls, for floats


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Where the calls of one zone go.

    Attributes:
        own: part of them that stays in the zone, from 0 to 1.
        shares: by instance id, what its weight is multiplied with. Multiplied, the weights of
            those that can be called come to the same sum as before.
    """

    own: float
    shares: Mapping[str, float]


def spread(up: Sequence[Instance], zone: str, avoided: Collection[str]) -> Spread:
    """Return where the calls of ``zone`` go.

    Args:
        up: the service's instances in the datacenter that are up. Those without a zone are
            nobody's own, and may help everybody.
        zone: the callers' zone.
        avoided: ids of instances that can't be called all the same.
    """
    capacity: dict[str, float] = collections.defaultdict(float, {zone: 0.0})
    for each in up:
        capacity[each.zone] += each.weight if each.id not in avoided else 0.0
    parts = _parts(capacity, zone)
    total = sum(capacity.values())
    factors = {name: parts[name] * total / has for name, has in capacity.items() if has}
    return Spread(own=parts[zone], shares={each.id: factors.get(each.zone, 0.0) for each in up})


def _parts(capacity: Mapping[str, float], zone: str) -> dict[str, float]:
    """Return the part of the calls for each zone; they come to 1 if anybody is there."""
    inside = {name: has for name, has in capacity.items() if name}
    needed = sum(inside.values()) / len(inside)
    own = capacity[zone] / needed if needed else 0.0
    own = own if own < ALL else 1.0
    others = {name: has for name, has in capacity.items() if name != zone}
    spare = {name: max(has - needed, 0.0) if name else has for name, has in others.items()}
    if not any(spare.values()):  # as when nobody is listed in the own zone
        spare = others
    sum_spare = sum(spare.values())
    rest = (1.0 - own) / sum_spare if sum_spare else 0.0
    return {zone: own, **{name: rest * has for name, has in spare.items()}}


def by_zone(home: Tier, zone: str) -> tuple[Tier, Tier]:
    """Split the own datacenter, whose list is known, into the own zone and the rest."""
    assert home.snapshot is not None
    near = tuple(each for each in home.snapshot.instances if each.zone == zone)
    rest = tuple(each for each in home.snapshot.instances if each.zone != zone)
    return (
        Tier(f"zone {zone}", dataclasses.replace(home.snapshot, instances=near)),
        Tier(home.name, dataclasses.replace(home.snapshot, instances=rest)),
    )
