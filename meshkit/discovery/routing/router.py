"""Where a call goes before any instance is chosen: its key, and its route."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from meshkit.discovery.routing.follow import RulesFollower, ServiceRules
from meshkit.discovery.routing.rules import ANY, Rules
from meshkit.discovery.routing.values import Pairs, Sticky, header
from meshkit.discovery.target import Pick, Route, Target


class Picker(Protocol):
    """What picks the instances for one call: a :class:`Target`, or a part of one."""

    def try_pick(self, transport: str, exclude: Collection[str] = ()) -> Pick | None:
        """See :meth:`Target.try_pick`."""
        ...

    async def pick(self, transport: str, exclude: Collection[str] = ()) -> Pick:
        """See :meth:`Target.pick`."""
        ...


class Aimed:
    """A target with the key and the route of a call."""

    __slots__ = ("key", "route", "target")

    def __init__(self, target: Target, key: str | None, route: Route | None) -> None:
        self.target = target
        self.key = key
        self.route = route

    def try_pick(self, transport: str, exclude: Collection[str] = ()) -> Pick | None:
        """See :class:`Picker`."""
        return self.target.try_pick(transport, exclude, key=self.key, route=self.route)

    async def pick(self, transport: str, exclude: Collection[str] = ()) -> Pick:
        """See :class:`Picker`."""
        return await self.target.pick(transport, exclude, key=self.key, route=self.route)


class Unaimed:
    """A call made before the rules were read: it waits for them as it does for the list."""

    __slots__ = ("_aimed", "_key", "_pairs", "_route", "_router")

    def __init__(
        self, router: Router, pairs: Pairs | None, key: str | None, route: Route | None
    ) -> None:
        self._aimed: Picker | None = None
        self._router = router
        self._pairs = pairs
        self._key = key
        self._route = route

    def try_pick(self, transport: str, exclude: Collection[str] = ()) -> Pick | None:
        """See :class:`Picker`."""
        return None if self._aimed is None else self._aimed.try_pick(transport, exclude)

    async def pick(self, transport: str, exclude: Collection[str] = ()) -> Pick:
        """See :class:`Picker`."""
        if self._aimed is None:
            await self._router.ready()
            self._aimed = self._router.aim(self._pairs, self._key, self._route)
        return await self._aimed.pick(transport, exclude)


class Router:
    """Aims the calls of one client.

    Without a route, a key or rules a call gets the target itself, and has cost one look.

    Args:
        target: the service, as discovery sees it.
        follower: keeps the rules; None for a client to which none apply.
        route: of calls that have none of their own.
        sticky: a header or ``cookie:NAME`` whose value is the key of calls that have none.
    """

    def __init__(
        self,
        target: Target,
        follower: RulesFollower | None = None,
        *,
        route: Route | None = None,
        sticky: str | None = None,
    ) -> None:
        self._target = target
        self._follower = follower
        self._route = route
        self._sticky = None if sticky is None else Sticky(sticky)
        self._usual: Picker = target if route is None else Aimed(target, None, route)
        self._rules = ServiceRules(target.service)
        self._ready = follower is None
        if follower is not None:
            self._rules = follower.of(target.service)
            target.on_change(self._rules.see)
            if (snapshot := target.subscription.snapshot) is not None:
                self._rules.see(snapshot.instances)

    def aim(
        self, pairs: Pairs | None, key: str | None = None, route: Route | None = None
    ) -> Picker:
        """Return what picks the instances for a call, retries included.

        Args:
            pairs: headers of the call.
            key: what the call is about, for what keeps calls together.
            route: of this call alone, instead of the client's.
        """
        if not self._ready and not self._known():
            return Unaimed(self, pairs, key, route)
        rules = self._rules.current
        if rules is None and route is None and key is None and self._sticky is None:
            return self._usual
        if route is None:
            route = self._route
        if key is None and self._sticky is not None:
            key = self._sticky.of(pairs)
        if rules is not None:
            route = rules.within(route, _group(rules, pairs, key))
        return Aimed(self._target, key, route)

    @property
    def route(self) -> Route | None:
        """The route of calls that have none of their own."""
        return self._route

    @property
    def rules(self) -> str:
        """The registry's rules in one line; empty without any."""
        return "" if self._rules.current is None else str(self._rules.current)

    async def ready(self) -> None:
        """Wait for the rules, up to a second."""
        if self._follower is not None:
            await self._follower.first()

    def _known(self) -> bool:
        """Whether to go without waiting: the rules are there, or the registry may be away."""
        assert self._follower is not None
        self._ready = self._follower.known
        snapshot = self._target.subscription.snapshot
        return self._ready or (snapshot is not None and snapshot.stale)


def _group(rules: Rules, pairs: Pairs | None, key: str | None) -> str:
    for match in rules.match:
        if all(_has(pairs, name, value) for name, value in match.headers):
            return match.to
    return rules.split.next() if key is None else rules.split.of(key)


def _has(pairs: Pairs | None, name: str, value: str) -> bool:
    found = header(pairs, name)
    return found is not None and value in (ANY, found)
