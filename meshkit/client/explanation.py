"""What calls to a service go by at the moment, for people and for the debug page."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Sequence
from typing import Any, Protocol

from meshkit.client.guards import Guards
from meshkit.client.stats import CallStats
from meshkit.discovery.routing import Router
from meshkit.discovery.target import Target
from meshkit.discovery.view import InstanceView, View, view

HEADINGS = ("instance", "endpoint", "zone", "weight", "share", "calls", "busy", "latency", "state")
ELSEWHERE = '"'  # calls that another table shows already


class Client(Protocol):
    """What HTTP clients and gRPC channels have in common."""

    @property
    def transport(self) -> str:
        """See the implementations: "http" or "grpc"."""
        ...

    @property
    def stats(self) -> CallStats:
        """Its counters."""
        ...

    @property
    def guards(self) -> Guards:
        """What all clients of the service share."""
        ...

    @property
    def target(self) -> Target:
        """The service, as discovery sees it."""
        ...

    @property
    def router(self) -> Router:
        """What aims its calls."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What calls to a service go by. ``str()`` shows it as a table.

    Attributes:
        service: the name that is called.
        registry: its URL, without secrets.
        known: there is a list of instances, if an empty one.
        stale: the list may be outdated, as the registry is away.
        age: seconds since the registry confirmed the list; 0 while it is followed.
        error: why the registry can't be followed; empty when it can.
        rules: the registry's routing rules, empty without any.
        views: for each transport and route in use, the balancer and its instances.
        ejected: how often instances were set aside, by reason.
        budget: further attempts (retries, hedges) that could be made now.
        refused: further attempts that the budget has not allowed so far.
        breakers: what each circuit breaker lets through: "closed", "open", "half-open".
        opened: how often they opened.
        bulkheads: of each, calls under way, calls that wait, and calls refused so far.
        stats: what the clients have counted, by transport.
    """

    service: str
    registry: str
    known: bool
    stale: bool
    age: float
    error: str
    rules: str
    views: tuple[View, ...]
    ejected: dict[str, int]
    budget: float
    refused: int
    breakers: tuple[str, ...]
    opened: int
    bulkheads: tuple[tuple[int, int, int], ...]
    stats: dict[str, CallStats]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        tables = zip(self.views, counted(self.views), strict=True)
        return "\n".join((*self._summary(), *(line for each in tables for line in table(*each))))

    def _summary(self) -> Iterable[str]:
        yield f"{self.service} in {self.registry}: {self._list()}"
        if self.rules:
            yield f"  rules: {self.rules}"
        for transport, stats in self.stats.items():
            yield (
                f"  {transport}: {stats.calls} calls, {stats.failed} failed, "
                f"{stats.retried} further attempts, {stats.hedged} of them hedges; "
                f"attempts that failed: {_listed(stats.failures) or 'none'}"
            )
        yield f"  set aside so far: {_listed(self.ejected) or 'nobody'}"
        yield f"  retry budget: {self.budget:.1f} left, {self.refused} refused"
        if self.breakers:
            yield f"  circuit breaker: {', '.join(self.breakers)}; opened {self.opened} times"
        for busy, waiting, refused in self.bulkheads:
            yield f"  bulkhead: {busy} under way, {waiting} wait, {refused} refused"

    def _list(self) -> str:
        trouble = f": {self.error}" if self.error else ""
        if not self.known:
            return f"no list of instances yet{trouble}"
        if self.stale:
            return f"the list is {self.age:.0f} s old and may be outdated{trouble}"
        return "the list is up to date"


def explain(clients: Sequence[Client]) -> Explanation:
    """Explain what the calls of these clients go by, all of one service; there is at least one."""
    first = clients[0]
    targets = tuple(dict.fromkeys(each.target for each in clients))
    subscription, guards = first.target.subscription, first.guards
    snapshot = subscription.snapshot
    stale = snapshot is not None and snapshot.stale
    stats: dict[str, CallStats] = {}
    for each in clients:
        stats.setdefault(each.transport, CallStats()).add(each.stats)
    return Explanation(
        service=first.target.service,
        registry=first.target.where,
        known=snapshot is not None,
        stale=stale,
        age=snapshot.age if snapshot is not None and stale else 0.0,
        error=str(subscription.error or ""),
        rules=first.router.rules,
        views=tuple(_views(clients)),
        ejected=_ejected(targets),
        budget=guards.budget.left,
        refused=guards.budget.refused,
        breakers=tuple(each.state.value for each in guards.breakers),
        opened=sum(each.opened for each in guards.breakers),
        bulkheads=tuple((each.busy, each.waiting, each.refused) for each in guards.bulkheads),
        stats=stats,
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _ejected(targets: Iterable[Target]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for target in targets:
        for reason, count in tuple(target.ejections.ejected.items()):
            counts[reason.value] = counts.get(reason.value, 0) + count
    return counts


def _views(clients: Iterable[Client]) -> Iterable[View]:
    """Yield what calls are picked from: the clients' own routes, and those of single calls."""
    wanted = {}
    for each in clients:
        wanted[each.target, each.transport, each.router.route] = True
        for transport, route in each.target.lists:
            if transport == each.transport:
                wanted[each.target, transport, route] = True
    for target, transport, route in wanted:
        yield view(target, transport, route)


def counted(views: Sequence[View]) -> list[set[str]]:
    """Return of which instances each view shows the calls, which are the same in all of them.

    The first that calls an instance shows them, or the first if none does.
    """
    shown: dict[str, int] = {}
    for only_called in (True, False):
        for number, seen in enumerate(views):
            for each in seen.instances:
                if each.called or not only_called:
                    shown.setdefault(each.id, number)
    return [{each for each in shown if shown[each] == number} for number in range(len(views))]


def table(seen: View, with_calls: Container[str]) -> Iterable[str]:
    """Yield the lines of one view; calls are shown of some of its instances."""
    route = f", route {seen.route}" if seen.route else ""
    panic = "; PANIC: too many deserve to be set aside, so nobody is" if seen.panic else ""
    yield f"  {seen.transport}{route}, {seen.balancer or 'no balancer yet'}{panic}"
    if not seen.instances:
        yield "    no instance"
        return
    rows = [HEADINGS, *(_row(each, each.id in with_calls) for each in seen.instances)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield ("    " + "  ".join(cells)).rstrip()


def _row(each: InstanceView, with_calls: bool) -> tuple[str, ...]:  # noqa: FBT001
    state = "called" if each.called and not each.why else each.why
    until = f", for {each.until:.1f} s" if each.until else ""
    return (
        each.id,
        each.endpoint or "-",
        each.zone or "-",
        f"{each.weight:.3g}" if each.called else "-",
        f"{each.share:.0%}" if each.called else "-",
        str(each.recent) if with_calls else ELSEWHERE,
        "-" if each.outstanding is None else str(each.outstanding),
        "-" if each.latency is None else f"{each.latency * 1000:.1f} ms",
        f"{state}{until}",
    )
