"""A list of instances as its balancer sees it, and why some get no calls. Made when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from meshkit.discovery.balancing.base import Describing, Known
from meshkit.discovery.ejection.record import TEXT, Ejected
from meshkit.discovery.target import Route, Target
from meshkit.model import Instance

UNKNOWN = Known()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One instance, as calls over one transport see it.

    Attributes:
        id: the instance's.
        endpoint: ``host:port``; empty when it does not serve the transport.
        zone: its failure domain.
        version: its version.
        status: what the registry says of it.
        weight: relative to the others, with what zone and slow start make of it; 0 without calls.
        share: of the calls that its weight stands for, 0 to 1; a balancer that goes by load or
            latency gives it more or less.
        called: whether the balancer chooses it.
        why: it is not called, or is called although it is aside; empty for an ordinary one.
        aside: the reason in one or two words, as in "refused"; empty when it is not set aside.
        until: seconds until one that is aside may be tried again.
        outstanding: calls that have not ended; None when the balancer does not count them.
        latency: seconds that an answer is expected to take; None when the balancer can't tell.
        recent: calls that ended in the present interval of the ejection policy (10 s).
    """

    id: str
    endpoint: str
    zone: str
    version: str
    status: str
    weight: float
    share: float
    called: bool
    why: str
    aside: str
    until: float
    outstanding: int | None
    latency: float | None
    recent: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A balancer and its instances.

    Attributes:
        transport: "http" or "grpc".
        route: which instances fit, in words; empty for all.
        balancer: the name of its class.
        panic: too many deserve to be set aside, so that nobody is who is there at all.
        instances: all that are listed, by id.
    """

    transport: str
    route: str
    balancer: str
    panic: bool
    instances: tuple[InstanceView, ...]


def view(target: Target, transport: str, route: Route | None) -> View:
    """Return how calls over a transport and on a route see their instances now."""
    balancer, candidates = target.balanced(transport, route) or (None, ())
    weights = {each.instance.id: each.weight for each in candidates}
    known: Mapping[str, Known] = {}
    seen_by: object = balancer
    if isinstance(seen_by, Describing):
        known = seen_by.describe()
    aside = {each.instance_id: each for each in target.ejections.describe()}
    recent = target.ejections.recent()
    total = sum(weights.values())

    def seen(instance: Instance) -> InstanceView:
        weight = weights.get(instance.id, 0.0)
        ejected = aside.get(instance.id)
        about = known.get(instance.id, UNKNOWN)
        return InstanceView(
            id=instance.id,
            endpoint=str(instance.endpoints.get(transport, "")),
            zone=instance.zone,
            version=instance.version,
            status=instance.status.value,
            weight=weight,
            share=weight / total if total else 0.0,
            called=instance.id in weights,
            why=_why(target, transport, route, instance, ejected, called=instance.id in weights),
            aside="" if ejected is None else ejected.reason.value,
            until=ejected.seconds if ejected is not None else 0.0,
            outstanding=about.outstanding,
            latency=about.latency,
            recent=recent.get(instance.id, 0),
        )

    snapshot = target.subscription.snapshot
    return View(
        transport=transport,
        route="" if route is None else str(route),
        balancer="" if balancer is None else type(balancer).__name__,
        panic=target.ejections.panic,
        instances=tuple(map(seen, () if snapshot is None else snapshot.instances)),
    )


def _why(
    target: Target,
    transport: str,
    route: Route | None,
    instance: Instance,
    ejected: Ejected | None,
    *,
    called: bool,
) -> str:
    if instance.lapsed:
        return "the registry has not heard of it: called when nobody else is left"
    if not instance.up:
        return f"its status is {instance.status.value}"
    if transport not in instance.endpoints:
        return f"it does not serve {transport}"
    if ejected is not None:
        stage = "" if ejected.stage == "paused" else f", {ejected.stage}"
        still = ", called as there is nobody better" if called else ""
        return f"{TEXT[ejected.reason]}{stage}{still}"
    if called:
        return ""
    snapshot = target.subscription.snapshot
    assert snapshot is not None
    serving = [each for each in snapshot.up if transport in each.endpoints]
    if route is not None and instance not in route.select(serving):
        return "it is not on the route"
    if not target.subscription.shares.get(instance.id, 1.0):
        return "nearer ones suffice"
    return "it is not in this client's subset"
