"""A service as its callers see it: whom to call next, and what became of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence

from meshkit.discovery.balancer import Balancer, Outcome, RoundRobin
from meshkit.discovery.followed import Followed
from meshkit.discovery.outlier import Ejections
from meshkit.errors import NoInstances
from meshkit.model import Endpoint, Instance, Snapshot

FIRST_LIST_WAIT = 5.0
FAR_AFTER = 2  # attempts of one call, of the three that may have reached a server
DRAIN_PAUSE = 30.0  # a leaving instance is off the list long before


class Pick:
    """An instance chosen for one call. Call :meth:`done` exactly once."""

    __slots__ = ("_target", "_transport", "endpoint", "instance")

    def __init__(
        self, target: Target, transport: str, instance: Instance, endpoint: Endpoint
    ) -> None:
        self.instance = instance
        self.endpoint = endpoint
        self._target = target
        self._transport = transport

    def done(self, outcome: Outcome) -> None:
        """Say how the call ended."""
        self._target.done(self._transport, self.instance, outcome)


class Target:
    """Picks instances of one service, for each transport from those that serve it.

    An instance that refused a connection, or was answered for by somebody else, is set aside at
    once, whatever the registry says; when all are set aside, all are used (panic mode).

    Args:
        subscription: the service's list.
        balancer: makes the balancer of one transport.
        ejections: who is set aside.
        where: the registry's URL, to be named when nobody is there.
    """

    def __init__(
        self,
        subscription: Followed,
        *,
        balancer: Callable[[], Balancer] = RoundRobin,
        ejections: Ejections | None = None,
        where: str = "",
    ) -> None:
        self._where = f" in {where}" if where else ""
        self.service = subscription.service
        self.subscription = subscription
        self._new_balancer = balancer
        self._balancers: dict[str, Balancer] = {}
        self._ejections = Ejections() if ejections is None else ejections
        self._stop = subscription.on_change(self._changed)

    def try_pick(self, transport: str, exclude: Collection[str] = ()) -> Pick | None:
        """Return the next instance that serves ``transport`` ("http" or "grpc").

        None when no list is known yet; await :meth:`pick` then.

        Raises:
            NoInstances: the list is known and holds nobody who is not in ``exclude``.
        """
        snapshot = self.subscription.snapshot
        if snapshot is None:
            return None
        if self._ejections and self._ejections.due():
            self._spread(snapshot)
        balancer = self._balancers.get(transport) or self._add_balancer(transport, snapshot)
        instance = self._elsewhere(transport, exclude) if len(exclude) >= FAR_AFTER else None
        if instance is None:
            instance = balancer.pick(exclude)
        if instance is None:
            instance = self._last_resort(snapshot, transport, exclude)
        return Pick(self, transport, instance, instance.endpoints[transport])

    async def pick(self, transport: str, exclude: Collection[str] = ()) -> Pick:
        """As :meth:`try_pick`, waiting up to 5 s for the first list."""
        try:
            async with asyncio.timeout(FIRST_LIST_WAIT):
                await self.subscription.known()
        except TimeoutError:
            reason = self.subscription.error or "the registry has not answered yet"
            raise NoInstances(f"{self.service}: no list of instances: {reason}") from None
        found = self.try_pick(transport, exclude)
        assert found is not None
        return found

    def done(self, transport: str, instance: Instance, outcome: Outcome) -> None:
        """Learn how a call ended; :meth:`Pick.done` calls it."""
        self._balancers[transport].done(instance, outcome)
        if outcome is Outcome.OK:
            if self._ejections and self._ejections.forgive(instance.id):
                self._refresh()
        elif outcome in (Outcome.REFUSED, Outcome.WRONG):
            self._ejections.eject(instance.id)
            self._refresh()
        elif outcome is Outcome.DRAINING:
            self._ejections.eject(instance.id, seconds=DRAIN_PAUSE)
            self._refresh()

    def on_change(self, listener: Callable[[Sequence[Instance]], None]) -> Callable[[], None]:
        """Call ``listener`` with the instances of each new list; returns a function to stop."""
        return self.subscription.on_change(lambda snapshot: listener(snapshot.instances))

    def _changed(self, snapshot: Snapshot) -> None:
        self._ejections.keep({instance.id for instance in snapshot.instances})
        self._spread(snapshot)

    def _refresh(self) -> None:
        if self.subscription.snapshot is not None:
            self._spread(self.subscription.snapshot)

    def _spread(self, snapshot: Snapshot) -> None:
        for transport, balancer in self._balancers.items():
            balancer.update(self._candidates(snapshot, transport))

    def _add_balancer(self, transport: str, snapshot: Snapshot) -> Balancer:
        balancer = self._balancers[transport] = self._new_balancer()
        balancer.update(self._candidates(snapshot, transport))
        return balancer

    def _candidates(self, snapshot: Snapshot, transport: str) -> list[Instance]:
        serving = [each for each in snapshot.up if transport in each.endpoints]
        aside = self._ejections.aside() if self._ejections else set()
        return [each for each in serving if each.id not in aside] or serving

    def _elsewhere(self, transport: str, exclude: Collection[str]) -> Instance | None:
        """Return one of the next place: where two have failed, a third may be failing too."""
        found = [
            each
            for each in self.subscription.reserve
            if transport in each.endpoints and each.id not in exclude
        ]
        return random.choice(found) if found else None  # noqa: S311 - no secret

    def _last_resort(
        self, snapshot: Snapshot, transport: str, exclude: Collection[str]
    ) -> Instance:
        """Return one that was not tried, set aside or far away; better than failing the call."""
        everybody = {each.id: each for each in (*snapshot.up, *self.subscription.reserve)}
        serving = [each for each in everybody.values() if transport in each.endpoints]
        for instance in serving:
            if instance.id not in exclude:
                return instance
        raise NoInstances(self._nobody(snapshot, transport, len(serving)))

    def _nobody(self, snapshot: Snapshot, transport: str, serving: int) -> str:
        stale = f" (list is {snapshot.age:.0f} s old: the registry is away)" * snapshot.stale
        if serving:
            return f"{self.service}: no instance left to try of {serving}{stale}"
        listed = len(snapshot.instances)
        if not listed:
            return f"{self.service}: no instance is registered{self._where}{stale}"
        return f"{self.service}: none of {listed} instances is up and serves {transport}{stale}"

    async def aclose(self) -> None:
        """Stop following the service."""
        self._stop()
        await self.subscription.aclose()
