"""A part of a long list for each client, so that not everybody is connected to everybody."""

from __future__ import annotations

import functools
import hashlib
import os
import secrets
from collections.abc import Sequence

from meshkit.model import Instance

ABOVE = 100  # instances; shorter lists are used whole
SIZE = 50


class Subset:
    """The instances that this client uses, the same ones as long as they are there.

    Each connection costs both sides memory and keepalive: 1,000 clients of 1,000 instances
    would have a million of them. Each client ranks the instances by a hash of its own id and
    theirs (rendezvous hashing) and takes the first ones. So when one leaves, only its own
    clients move, by one place; a client that reshuffled at each change would drop all its
    connections and statistics.

    The clients of an instance vary in number as any random draw does: with c clients for each on
    average, by the square root of c. Hence a size that is not small, and whole lists by default
    up to 100. With few clients of many instances ask for more.
    (Google's SRE book, chapter 20, weighs the ways to do this.)

    Args:
        size: at most so many; 0 for all. None: 50, of lists of more than 100.
        client: what distinguishes this client from others.
    """

    def __init__(self, size: int | None = None, *, client: bytes | None = None) -> None:
        self._above = ABOVE if size is None else size
        self._size = SIZE if size is None else size
        self._client = client_id(os.getpid()) if client is None else client
        self._ranks: dict[str, bytes] = {}

    def of(self, instances: Sequence[Instance]) -> Sequence[Instance]:
        """Return this client's part, in the order of the list."""
        if not self._size or len(instances) <= self._above:
            return instances
        self._ranks = {each.id: self._rank(each.id) for each in instances}
        ranked = sorted(instances, key=lambda each: self._ranks[each.id])
        chosen = {each.id for each in ranked[: self._size]}
        return [each for each in instances if each.id in chosen]

    def _rank(self, instance_id: str) -> bytes:
        known = self._ranks.get(instance_id)
        if known is not None:
            return known
        return hashlib.blake2b(instance_id.encode(), key=self._client, digest_size=8).digest()


@functools.cache
def client_id(pid: int) -> bytes:  # noqa: ARG001 - a forked child is another client
    """Return the id of this process as a client."""
    return secrets.token_bytes(16)
