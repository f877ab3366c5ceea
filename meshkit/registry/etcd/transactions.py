"""Transactions: conditions on keys, and what is done when all of them hold or not.

https://etcd.io/docs/v3.5/learning/api/#transaction
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshkit.registry.etcd.messages import CREATE, EQUAL, LEASE, MOD, TXN, make


def absent(key: bytes) -> Any:
    """There is no such key."""
    return make("Compare", key=key, target=CREATE, result=EQUAL, create_revision=0)


def unchanged(key: bytes, revision: int) -> Any:
    """The key was last written at this revision."""
    return make("Compare", key=key, target=MOD, result=EQUAL, mod_revision=revision)


def as_seen(key: bytes, found: Sequence[Any]) -> Any:
    """The key is as it was read: ``found`` is its entry, or nothing."""
    return unchanged(key, found[0].mod_revision) if found else absent(key)


def owned(key: bytes, lease: int) -> Any:
    """The key is there, and belongs to this lease."""
    return make("Compare", key=key, target=LEASE, result=EQUAL, lease=lease)


def put(key: bytes, value: bytes, lease: int = 0) -> Any:
    """Write the key; it ends with the lease, when there is one."""
    return make("RequestOp", request_put=make("PutRequest", key=key, value=value, lease=lease))


def delete(key: bytes) -> Any:
    """Remove the key, if it is there."""
    return make("RequestOp", request_delete_range=make("DeleteRangeRequest", key=key))


def read(key: bytes) -> Any:
    """Read the key."""
    return make("RequestOp", request_range=make("RangeRequest", key=key))


def transaction(
    *,
    conditions: list[Any] | None = None,
    then: list[Any] | None = None,
    otherwise: list[Any] | None = None,
) -> Any:
    """Return the request."""
    return make(TXN.request, compare=conditions, success=then, failure=otherwise)
