"""What several registries say together. Pure functions.

Of one id that several list, a member that can be followed is believed before one that is away,
then the earlier one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from meshkit.model import Instance, ServiceInfo, Snapshot


def merge(service: str, lists: Sequence[Snapshot | None], *, revision: int) -> Snapshot:
    """Return the union of the members' lists.

    It is stale when one of them is, or is unknown (None): instances may be missing then.
    """
    known = [each for each in lists if each is not None]
    found: dict[str, Instance] = {}
    for snapshot in sorted(known, key=lambda each: each.stale):  # the sort keeps equals in order
        for instance in snapshot.instances:
            found.setdefault(instance.id, instance)
    stale = [each.read_at for each in known if each.stale]
    return Snapshot(
        service=service,
        instances=tuple(found[instance_id] for instance_id in sorted(found)),
        revision=revision,
        stale=bool(stale) or len(known) < len(lists),
        read_at=min(stale, default=time.time()),
    )


def shared(lists: Iterable[Iterable[ServiceInfo]]) -> set[str]:
    """Return the names that more than one member lists: their instances may be the same."""
    once: set[str] = set()
    twice: set[str] = set()
    for services in lists:
        names = {each.name for each in services}
        twice |= once & names
        once |= names
    return twice


def add_up(
    lists: Iterable[Iterable[ServiceInfo]], counts: dict[str, int]
) -> tuple[ServiceInfo, ...]:
    """Return all services with the tags of all members.

    Args:
        lists: what each member lists.
        counts: instances of the :func:`shared` names, each counted once.
    """
    tags: dict[str, set[str]] = {}
    for services in lists:
        for each in services:
            tags.setdefault(each.name, set()).update(each.tags)
            counts.setdefault(each.name, each.instances)
    return tuple(
        ServiceInfo(name=name, tags=tuple(sorted(tags[name])), instances=counts[name])
        for name in sorted(tags)
        if counts[name]
    )
