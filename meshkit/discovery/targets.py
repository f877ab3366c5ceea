"""The targets of one mesh: several to a service if its clients differ, over one list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from meshkit.discovery.balancing import BalancerFactory
from meshkit.discovery.balancing.slow_start import SLOW_START
from meshkit.discovery.cache import SnapshotCache
from meshkit.discovery.ejection import EjectionPolicy, Ejections, Prober
from meshkit.discovery.followed import Followed
from meshkit.discovery.places import Places
from meshkit.discovery.subscription import Subscription
from meshkit.discovery.target import Target
from meshkit.registry import Registry

TargetKey = tuple[str, BalancerFactory, float, int | None, EjectionPolicy]
Shared = tuple[Followed, Ejections, Prober]


class Targets:
    """Makes each target once.

    Clients of a service that balance differently see one list, which the registry is asked for
    once, and share what they learn: whom one has found dead, the others do not call. Only clients
    with an ejection policy of their own judge by themselves.

    Args:
        registry: where the services are; not closed by this one.
        zone: the own zone; empty when it does not matter.
        failover: other datacenters, in order.
        share: of a datacenter's instances that have to be up for it to suffice; None for the
            usual one.

    Raises:
        ConfigError: ``failover`` with a registry that knows no datacenters.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        zone: str = "",
        failover: Sequence[str] = (),
        share: float | None = None,
    ) -> None:
        self._registry = registry
        self._zone = zone
        self._places = Places(registry, failover)
        self._share = share
        self._targets: dict[TargetKey, Target] = {}
        self._shared: dict[tuple[str, EjectionPolicy], Shared] = {}
        self._subscriptions: dict[tuple[Registry, str], Subscription] = {}
        self._caches: dict[str, SnapshotCache | None] = {}

    def of(
        self,
        service: str,
        *,
        balancer: BalancerFactory,
        ejection: EjectionPolicy,
        slow_start: float = SLOW_START,
        subset: int | None = None,
    ) -> Target:
        """Return what picks instances of ``service``; it follows the registry from now on."""
        key = (service, balancer, slow_start, subset, ejection)
        if (target := self._targets.get(key)) is None:
            followed, ejections, prober = self._share_of(service, ejection)
            target = self._targets[key] = Target(
                followed,
                balancer=balancer,
                slow_start=slow_start,
                subset=subset,
                ejections=ejections,
                prober=prober,
                where=self._registry.url,
            )
        return target

    def _share_of(self, service: str, policy: EjectionPolicy) -> Shared:
        """Return what all targets of a service with one ejection policy have in common."""
        key = (service, policy)
        if (shared := self._shared.get(key)) is None:
            ejections = Ejections(policy, service=service)
            followed = self._follow(service, ejections)
            shared = self._shared[key] = (followed, ejections, Prober(ejections))
        return shared

    def _follow(self, service: str, ejections: Ejections) -> Followed:
        def subscribe(registry: Registry) -> Subscription:
            return self._subscribe(registry, service)

        if not self._zone and not self._places.failover:
            return subscribe(self._registry)
        from meshkit.discovery.failover import Failover  # noqa: PLC0415 - most have one place
        from meshkit.discovery.tiers import SHARE  # noqa: PLC0415

        return Failover(
            service,
            self._places,
            subscribe,
            zone=self._zone,
            share=SHARE if self._share is None else self._share,
            ejections=ejections,
        )

    def _subscribe(self, registry: Registry, service: str) -> Subscription:
        key = (registry, service)
        if (subscription := self._subscriptions.get(key)) is None:
            subscription = Subscription(registry, service, self._cache(registry))
            self._subscriptions[key] = subscription
        return subscription

    def _cache(self, registry: Registry) -> SnapshotCache | None:
        # A registry without a server can't be away.
        if self._registry.peer is None:
            return None
        if registry.url not in self._caches:
            self._caches[registry.url] = SnapshotCache.of(registry.url)
        return self._caches[registry.url]

    def __iter__(self) -> Iterator[Target]:
        return iter(tuple(self._targets.values()))

    async def aclose(self) -> None:
        """Stop following all services. Closing twice is safe."""
        async with contextlib.AsyncExitStack() as closing:
            for target in self:
                closing.push_async_callback(target.aclose)
