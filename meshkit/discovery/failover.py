"""One service's list from several places: near ones first, far ones when the near do not suffice.

All places are followed all the time. A watch that began only when it is needed would cost seconds
at the worst moment; one that waits costs a connection to the own registry.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable

from meshkit.backoff import Backoff
from meshkit.discovery.ejection import Ejections
from meshkit.discovery.followed import Followed
from meshkit.discovery.places import Places
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.tiers import SHARE, Health, Tier, merge, needed
from meshkit.discovery.zones import Spread, by_zone, spread
from meshkit.errors import RegistryError
from meshkit.registry import Registry

HOME = "own datacenter"
LOOK_CAP = 5.0
LOOK_AGAIN = 30.0  # seconds, for a datacenter that was not there

log = logging.getLogger("meshkit.discovery")

Follow = Callable[[Registry], Subscription]


class Failover(Followed):
    """Follows one service in several places; to callers it is as one :class:`Subscription`.

    Args:
        service: what to follow.
        places: the own registry, and the datacenters to fail over to.
        follow: makes the subscription of one registry.
        zone: the own zone, empty when it does not matter.
        share: of a datacenter's instances that have to be up, between 0 and 1.
        ejections: those that callers have set aside do not count as up.

    Attributes:
        tiers: names of the places that calls go to now, nearest first.
        own_zone: part of the own datacenter's calls that stays in the own zone, from 0 to 1; 1
            when no zone is set.
    """

    def __init__(
        self,
        service: str,
        places: Places,
        follow: Follow,
        *,
        zone: str = "",
        share: float = SHARE,
        ejections: Ejections | None = None,
    ) -> None:
        super().__init__(service)
        self.tiers: tuple[str, ...] = ()
        self.own_zone = 1.0
        self._places = places
        self._follow = follow
        self._zone = zone
        self._share = share
        self._ejections = Ejections(service=service) if ejections is None else ejections
        self._ejections.on_change(self._choose)
        self._health: dict[str, Health] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._home = self._begin(places.home)
        self._others: dict[str, Subscription] = {}
        self._looking = bool(places.failover)  # for the other datacenters, for the first time
        self._finder = asyncio.create_task(self._find(), name=f"meshkit-failover-{service}")
        self._choose()

    async def aclose(self) -> None:
        """See :class:`Followed`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._finder.cancel()
        await asyncio.gather(self._finder, return_exceptions=True)
        followed = (self._home, *self._others.values())
        await asyncio.gather(*(each.aclose() for each in followed))

    def _begin(self, registry: Registry) -> Subscription:
        subscription = self._follow(registry)
        subscription.on_change(lambda _: self._choose())
        subscription.on_loss(self._choose)
        return subscription

    async def _find(self) -> None:
        """Follow the other datacenters as soon as they are found."""
        backoff, complete = Backoff(cap=LOOK_CAP), not self._places.failover
        while not (complete or self._closed):  # cancelling may end in an engine's error instead
            try:
                names, complete = await self._places.found()
            except RegistryError as error:
                log.debug("%s: looking for the other datacenters failed: %s", self.service, error)
                pause = backoff.next()
            except Exception:
                log.exception("looking for the other datacenters failed unexpectedly")
                pause = backoff.next()
            else:
                for name in names:
                    if name not in self._others:
                        self._others[name] = self._begin(self._places.registry(name))
                pause = LOOK_AGAIN
            self._looking = False
            self._choose()
            if not (complete or self._closed):
                await asyncio.sleep(pause)

    def _all_tiers(self) -> list[Tier]:
        home = _tier(HOME, self._home)
        others = [
            _tier(name, self._others[name])
            for name in self._places.failover
            if name in self._others
        ]
        if self._looking:
            others.append(Tier("other datacenters", None, pending=True))
        return [home, *others]

    def _choose(self) -> None:
        """Decide anew which tiers are used; called whenever anything of them has changed."""
        if self._closed:
            return
        self.error = self._home.error
        tiers, aside = self._all_tiers(), self._ejections.look()
        for tier in tiers:
            self._health.setdefault(tier.name, Health(self._share))
        now = time.monotonic()
        count = needed(tiers, self._health, aside, now=now)
        self._judge_again(now)
        if count is None:
            return
        used = tiers[:count]
        revision = self.snapshot.revision + 1 if self.snapshot is not None else 1
        snapshot = merge(self.service, used, revision=revision)
        self._ejections.keep(snapshot.instances)
        zones = self._by_zone(tiers[0])
        self._reserve(tiers, aside)
        self._tell(used, aside)
        old, shares = self.snapshot, self._weigh(used, zones, aside)
        known = old is not None and (old.instances, old.stale) == (
            snapshot.instances,
            snapshot.stale,
        )
        if not known or shares != self.shares:
            self.shares = shares
            self._publish(snapshot)

    def _by_zone(self, home: Tier) -> Spread | None:
        """Return how the own datacenter's calls are spread over its zones, if that matters."""
        if not self._zone or home.snapshot is None:
            self.own_zone = 1.0
            return None
        zones = spread(home.up, self._zone, self._ejections.avoided)
        self.own_zone = zones.own
        return zones

    def _weigh(self, used: list[Tier], zones: Spread | None, aside: set[str]) -> dict[str, float]:
        """Return the shares of those whose weights the place changes."""
        shares = dict(zones.shares) if zones is not None else {}
        if len(used) > 1 and self._health[used[-1].name].healthy:
            # Somebody else can do it, so there is no need to call who deserves to be set aside,
            # however many these are.
            shares |= {each.id: 0.0 for tier in used for each in tier.up if each.id in aside}
        return shares

    def _reserve(self, tiers: list[Tier], aside: set[str]) -> None:
        """Note whom to call when a call has failed twice: the second place that has anybody."""
        home, *others = tiers
        places = [*self._split(home), *others]
        alive = [tuple(each for each in place.up if each.id not in aside) for place in places]
        self.reserve = next(itertools.islice(filter(None, alive), 1, None), ())

    def _split(self, home: Tier) -> tuple[Tier, ...]:
        """Return the own zone and the rest of the datacenter; all of it when no zone is set."""
        if not self._zone or home.snapshot is None:
            return (home,)
        return by_zone(home, self._zone)

    def _judge_again(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = min(health.due for health in self._health.values())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(due - now, self._choose) if due - now < 86400 else None

    def _tell(self, used: list[Tier], aside: set[str]) -> None:
        """Note the tiers in use, and log a change of them."""
        home, *others = used
        near = self._split(home)
        if len(near) > 1:  # either may get none of the calls
            near = tuple(
                each
                for each, part in zip(near, (self.own_zone, 1 - self.own_zone), strict=True)
                if part > 0
            )
        used = [*near, *others]
        before, self.tiers = self.tiers, tuple(tier.name for tier in used if tier.up)
        if self.tiers == before or (not before and len(used) == 1):
            return
        remote = any(name in self._others for name in self.tiers)
        states = ", ".join(tier.describe(aside) for tier in used) or "nobody"
        log.log(
            logging.WARNING if remote else logging.INFO, "%s: calls go to %s", self.service, states
        )


def _tier(name: str, subscription: Subscription) -> Tier:
    unknown = subscription.snapshot is None
    return Tier(name, subscription.snapshot, pending=unknown and subscription.error is None)
