"""Doubting a list that shrank suddenly: a registry that lost its memory is not a truth.

Pure functions over snapshots. Only absence is doubted; a status that an instance is shown with
is taken at its word.
"""

from __future__ import annotations

import dataclasses

from meshkit.model import Instance, Snapshot


def missing(old: Snapshot, new: Snapshot) -> tuple[Instance, ...]:
    """Return the callable instances of ``old`` that ``new`` does not list at all."""
    listed = {instance.id for instance in new.instances}
    return tuple(instance for instance in old.up if instance.id not in listed)


def is_large_drop(old: Snapshot, new: Snapshot) -> bool:
    """Whether more than half of the callable instances vanished at once."""
    return 2 * len(missing(old, new)) > len(old.up)


def keep_missing(old: Snapshot, new: Snapshot) -> Snapshot:
    """Return ``new`` with the vanished instances of ``old`` still in it, until confirmed."""
    instances = sorted((*new.instances, *missing(old, new)), key=lambda each: each.id)
    return dataclasses.replace(new, instances=tuple(instances))
