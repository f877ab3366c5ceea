"""A service as its callers see it: whom to call next, and what became of it."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Collection, Sequence
from time import perf_counter
from typing import Protocol

from meshkit.discovery.balancing import Balancer, BalancerFactory, Candidate, Done, Outcome
from meshkit.discovery.balancing.base import forget
from meshkit.discovery.balancing.p2c import PowerOfTwo
from meshkit.discovery.balancing.slow_start import SLOW_START, SlowStart
from meshkit.discovery.balancing.subset import Subset
from meshkit.discovery.ejection import Ejections, Probe, Prober
from meshkit.discovery.followed import Followed
from meshkit.errors import NoInstances
from meshkit.model import Endpoint, Instance, Snapshot

FIRST_LIST_WAIT = 5.0
ROUTES = 100  # whose balancers are kept; callers have few, or make a new one for each call
FAR_AFTER = 2  # attempts of one call, of the three that may have reached a server
NEVER = math.inf


# Learns of each call its instance's id, how it ended, and after how many seconds.
Observe = Callable[[str, Outcome, float], None]


class Route(Protocol):
    """Which of a service's instances a call may go to. Equal routes share their balancers."""

    def __hash__(self) -> int: ...

    def select(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return those that fit; called when the list changes, not with each call."""
        ...

    def spare(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return those that a call may go to when all of the selected have failed it."""
        ...

    def explain(self, instances: Sequence[Instance]) -> str:
        """Say in one line that none of the instances fits, and what they have instead."""
        ...


class Pick:
    """An instance chosen for one call. Call :meth:`done` exactly once.

    Attributes:
        instance: who was chosen.
        endpoint: where it listens for the transport that was asked for.
    """

    __slots__ = ("_began", "_done", "_observe", "_seconds", "endpoint", "instance")

    def __init__(
        self, instance: Instance, endpoint: Endpoint, done: Done, observe: Observe
    ) -> None:
        self.instance = instance
        self.endpoint = endpoint
        self._done = done
        self._observe = observe
        self._began = perf_counter()
        self._seconds: float | None = None

    def answered(self) -> None:
        """Say that the answer has begun: how long its body lasts says nothing of the instance."""
        self._seconds = perf_counter() - self._began

    def done(self, outcome: Outcome) -> None:
        """Say how the call ended."""
        seconds = self._seconds
        if seconds is None:
            seconds = perf_counter() - self._began
        self._done(outcome, seconds)
        self._observe(self.instance.id, outcome, seconds)


class Target:
    """Picks instances of one service, for each transport from those that serve it.

    An instance that refused a connection, or was answered for by somebody else, is set aside at
    once, whatever the registry says, and one that fails or lags by its
    :class:`~meshkit.EjectionPolicy`; when all are set aside, all are used.

    What a balancer chooses from is made when the list changes, in this order: those that are up
    and serve the transport, that the route selects, that have a share by their place, that are
    not set aside, of which this client takes its subset; their weights are their own, times that
    share, less while they are new (slow start). When none of those is left to try, a call goes to
    one that the registry has not heard of in time, rather than fail.

    Args:
        subscription: the service's list.
        balancer: makes the balancer of one transport and route.
        slow_start: seconds until a new instance has its full share; 0 for at once.
        subset: instances to use at most, 0 for all; None for 50 of lists of more than 100.
        ejections: who is set aside; may be shared with other targets of the service, as
            ``subscription`` may.
        prober: asks those whether they are well, and is shared along.
        where: the registry's URL, to be named when nobody is there.

    Attributes:
        ejections: who is set aside; see its ``describe()``.
        where: the registry's URL.
    """

    def __init__(
        self,
        subscription: Followed,
        *,
        balancer: BalancerFactory = PowerOfTwo,
        slow_start: float = SLOW_START,
        subset: int | None = None,
        ejections: Ejections | None = None,
        prober: Prober | None = None,
        where: str = "",
    ) -> None:
        self._closed = False
        self.where = where
        self.service = subscription.service
        self.subscription = subscription
        self._new_balancer = balancer
        self._balancers: dict[tuple[str, Route | None], Balancer] = {}
        self._candidates: dict[tuple[str, Route | None], list[Candidate]] = {}
        self._default: dict[str, Balancer] = {}  # those without a route, found a little faster
        self.ejections = Ejections(service=self.service) if ejections is None else ejections
        self.ejections.on_change(self._refresh)
        self._observe: Observe = self.ejections.observe
        self._prober = Prober(self.ejections) if prober is None else prober
        self._slow_start = SlowStart(slow_start)
        self._subset = Subset(subset)
        self._ramp: asyncio.TimerHandle | None = None
        self._up: dict[str, Instance] = {}
        if subscription.snapshot is not None:
            self._see(subscription.snapshot)
        self._stop = subscription.on_change(self._changed)

    def try_pick(
        self,
        transport: str,
        exclude: Collection[str] = (),
        *,
        key: str | None = None,
        route: Route | None = None,
    ) -> Pick | None:
        """Return the next instance that serves ``transport`` ("http" or "grpc").

        None when no list is known yet; await :meth:`pick` then.

        Args:
            transport: which endpoint is wanted.
            exclude: ids of instances that were tried for this call.
            key: calls with one key stay together, if the balancer does that.
            route: which instances are fit for this call.

        Raises:
            NoInstances: the list is known and holds nobody who is not in ``exclude``.
        """
        if self.ejections.next_return != NEVER and not exclude and self.ejections.due():
            trial = self._trial(transport, route)
            if trial is not None:
                return trial
        if route is None:
            balancer = self._default.get(transport)
        else:
            balancer = self._balancers.get((transport, route))
        if balancer is None:
            balancer = self._add_balancer(transport, route)
            if balancer is None:
                return None
        chosen = None
        if exclude and len(exclude) >= FAR_AFTER:
            chosen = self._elsewhere(transport, exclude, route)
        if chosen is None:
            chosen = balancer.pick(exclude, key)
        if chosen is None:
            chosen = self._last_resort(transport, exclude, route)
        instance, done = chosen
        return Pick(instance, instance.endpoints[transport], done, self._observe)

    async def pick(
        self,
        transport: str,
        exclude: Collection[str] = (),
        *,
        key: str | None = None,
        route: Route | None = None,
    ) -> Pick:
        """As :meth:`try_pick`, waiting up to 5 s for the first list."""
        if self._closed:
            raise NoInstances(f"{self.service}: not called, as the mesh is closed")
        try:
            async with asyncio.timeout(FIRST_LIST_WAIT):
                await self.subscription.known()
        except TimeoutError:
            reason = self.subscription.error or "the registry has not answered yet"
            raise NoInstances(f"{self.service}: no list of instances: {reason}") from None
        found = self.try_pick(transport, exclude, key=key, route=route)
        assert found is not None
        return found

    def observe(self, instance: Instance, outcome: Outcome, seconds: float) -> None:
        """Learn how a call ended, as :meth:`Pick.done` tells it."""
        self._observe(instance.id, outcome, seconds)

    def probe_with(self, transport: str, probe: Probe) -> None:
        """Let this say whether an instance that was set aside may be tried again."""
        self._prober.use(transport, probe)

    def on_change(self, listener: Callable[[Sequence[Instance]], None]) -> Callable[[], None]:
        """Call ``listener`` with the instances of each new list; returns a function to stop."""
        return self.subscription.on_change(lambda snapshot: listener(snapshot.instances))

    @property
    def lists(self) -> tuple[tuple[str, Route | None], ...]:
        """The transport and route of each list that calls were picked from."""
        return tuple(self._balancers)

    def balanced(
        self, transport: str, route: Route | None = None
    ) -> tuple[Balancer, Sequence[Candidate]] | None:
        """Return the balancer of a transport and route, and what it chooses from now.

        None when no list is known yet.
        """
        key = (transport, route)
        balancer = self._balancers.get(key) or self._add_balancer(transport, route)
        return None if balancer is None else (balancer, self._candidates[key])

    def _changed(self, snapshot: Snapshot) -> None:
        self._see(snapshot)
        self._spread(snapshot)

    def _see(self, snapshot: Snapshot) -> None:
        self._up = {each.id: each for each in snapshot.up}
        self.ejections.keep(snapshot.instances)
        self._slow_start.see(snapshot.instances)

    def _refresh(self) -> None:
        if self.subscription.snapshot is not None:
            self._spread(self.subscription.snapshot)

    def _spread(self, snapshot: Snapshot) -> None:
        for (transport, route), balancer in self._balancers.items():
            self._update(balancer, transport, route, snapshot)

    def _add_balancer(self, transport: str, route: Route | None) -> Balancer | None:
        snapshot = self.subscription.snapshot
        if snapshot is None:
            return None
        if len(self._balancers) >= ROUTES:
            oldest = next(each for each in self._balancers if each[1] is not None)
            del self._balancers[oldest], self._candidates[oldest]
        balancer = self._balancers[transport, route] = self._new_balancer()
        if route is None:
            self._default[transport] = balancer
        self._update(balancer, transport, route, snapshot)
        return balancer

    def _update(
        self, balancer: Balancer, transport: str, route: Route | None, snapshot: Snapshot
    ) -> None:
        serving: Sequence[Instance] = [each for each in snapshot.up if transport in each.endpoints]
        if route is not None:
            serving = route.select(serving)
        shares, avoided = self.subscription.shares, self.ejections.avoided
        usable: Sequence[Instance] = (
            [each for each in serving if each.id not in avoided and shares.get(each.id, 1.0)]
            or [each for each in serving if each.id not in avoided]
            or serving
        )
        if not getattr(balancer, "whole_list", False):
            usable = self._subset.of(usable)
        factors, again = self._slow_start.factors(usable)
        if again is not None and self._ramp is None:
            self._ramp = asyncio.get_running_loop().call_later(again, self._ramp_up)
        candidates = self._candidates[transport, route] = [
            Candidate(each, each.weight * factor * (shares.get(each.id) or 1.0))
            for each, factor in zip(usable, factors, strict=True)
        ]
        balancer.update(candidates)

    def _ramp_up(self) -> None:
        self._ramp = None
        self._refresh()

    def _trial(self, transport: str, route: Route | None) -> Pick | None:
        """Return one whose pause has ended for a single call, unless it has to be probed first."""
        for instance_id in self.ejections.waiting():
            instance = self._up.get(instance_id)
            if instance is None:
                continue
            if self.ejections.to_probe(instance_id) and self._prober.begin(instance):
                continue
            # Of all who are up: a soft route selects anybody who is asked about alone.
            if transport in instance.endpoints and (
                route is None or instance in route.select(list(self._up.values()))
            ):
                done = self.ejections.trial(instance_id)
                return Pick(instance, instance.endpoints[transport], done, self._observe)
        return None

    def _elsewhere(
        self, transport: str, exclude: Collection[str], route: Route | None
    ) -> tuple[Instance, Done] | None:
        """Return one of the next place: where two have failed, a third may be failing too."""
        serving: Sequence[Instance] = [
            each for each in self.subscription.reserve if transport in each.endpoints
        ]
        if route is not None:
            serving = route.spare(serving)
        found = [each for each in serving if each.id not in exclude]
        return (random.choice(found), forget) if found else None  # noqa: S311 - no secret

    def _last_resort(
        self, transport: str, exclude: Collection[str], route: Route | None
    ) -> tuple[Instance, Done]:
        """Return one that was not tried; better than failing the call.

        First of those set aside or far away, then of those that the registry has not heard of in
        time: it may be the registry that hung, and whoever it lists as up may have ended since.
        """
        snapshot = self.subscription.snapshot
        assert snapshot is not None
        lapsed = [each for each in snapshot.instances if each.lapsed]
        serving: list[Instance] = []
        fitting: list[Instance] = []
        for instances in ((*snapshot.up, *self.subscription.reserve), lapsed):
            found = list({e.id: e for e in instances if transport in e.endpoints}.values())
            fit = found if route is None else route.spare(found)
            if untried := [each for each in fit if each.id not in exclude]:
                return random.choice(untried), forget  # noqa: S311 - no secret
            serving += found
            fitting += fit
        if serving and not fitting and route is not None:
            raise NoInstances(f"{self.service}: {route.explain(serving)}{_age(snapshot)}")
        raise NoInstances(self._nobody(snapshot, transport, len(fitting)))

    def _nobody(self, snapshot: Snapshot, transport: str, fitting: int) -> str:
        if fitting:
            return f"{self.service}: no instance left to try of {fitting}{_age(snapshot)}"
        listed = len(snapshot.instances)
        if not listed:
            where = f" in {self.where}" if self.where else ""
            return f"{self.service}: no instance is registered{where}{_age(snapshot)}"
        none = f"none of {listed} instances is up and serves {transport}"
        return f"{self.service}: {none}{_age(snapshot)}"

    async def aclose(self) -> None:
        """Stop following the service, also for targets with which that is shared.

        Closing twice is safe.
        """
        self._closed = True
        self._stop()
        if self._ramp is not None:
            self._ramp.cancel()
        self.ejections.close()
        await self._prober.aclose()
        await self.subscription.aclose()


def _age(snapshot: Snapshot) -> str:
    return f" (list is {snapshot.age:.0f} s old: the registry is away)" * snapshot.stale
