"""Doubting a list that shrank suddenly: a registry that lost its memory is not a truth.

Pure functions over snapshots. Absence is doubted, and so is a lapse: a registry that hung for a
while finds everybody overdue. A status that an instance itself has declared is taken at its word.
"""

from __future__ import annotations

import dataclasses

from meshkit.model import Instance, Snapshot


def missing(old: Snapshot, new: Snapshot) -> tuple[Instance, ...]:
    """Return the callable instances of ``old`` that ``new`` does not list, or only as lapsed."""
    listed = {instance.id for instance in new.instances if not instance.lapsed}
    return tuple(instance for instance in old.up if instance.id not in listed)


def is_large_drop(old: Snapshot, new: Snapshot) -> bool:
    """Whether more than half of the callable instances vanished at once."""
    return 2 * len(missing(old, new)) > len(old.up)


def keep_missing(old: Snapshot, new: Snapshot) -> Snapshot:
    """Return ``new`` with the vanished instances of ``old`` still in it, until confirmed."""
    kept = {each.id: each for each in (*new.instances, *missing(old, new))}
    return dataclasses.replace(new, instances=tuple(kept[name] for name in sorted(kept)))
