"""Dividing calls by shares: exactly over time, or so that a key always falls on one side."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping

BITS = 52  # of a hash; with them, a number and a half is exact in a float


class Split:
    """Divides calls among groups by their shares.

    Without a key by smooth weighted round robin (as nginx does it): of as many calls in a row as
    the shares add up to, each group gets exactly its share, spread evenly. With a key by weighted
    rendezvous hashing: the key's group depends on nothing but key and shares, is the same in all
    processes, and a share that grows takes keys from the others without moving any other key.

    Args:
        shares: group to share, whole numbers; what counts is their relation. At least one is > 0.
        salt: what divides the same keys differently elsewhere.
    """

    def __init__(self, shares: Mapping[str, int], salt: str) -> None:
        common = math.gcd(*shares.values())
        self._shares = [(group, share // common) for group, share in shares.items() if share]
        self._total = sum(share for _, share in self._shares)
        self._credits = [0] * len(self._shares)
        self._salt = salt
        # Anywhere in the row, or of many callers that begin together none would call the canary.
        for _ in range(random.randrange(self._total)):  # noqa: S311 - no secret
            self.next()

    def next(self) -> str:
        """Return the group of the next call."""
        chosen, most = 0, -math.inf
        for index, (_, share) in enumerate(self._shares):
            credit = self._credits[index] = self._credits[index] + share
            if credit > most:
                chosen, most = index, credit
        self._credits[chosen] -= self._total
        return self._shares[chosen][0]

    def of(self, key: str) -> str:
        """Return the group of all calls with this key."""
        # C. Schindelhauer, G. Schomaker: Weighted Distributed Hash Tables (2005).
        return max(self._shares, key=lambda each: each[1] / -math.log(self._draw(each[0], key)))[0]

    def _draw(self, group: str, key: str) -> float:
        """Return a number between 0 and 1 that depends on the group and the key alone."""
        text = f"{self._salt}\0{group}\0{key}".encode(errors="surrogatepass")
        digest = hashlib.blake2b(text, digest_size=8).digest()
        return ((int.from_bytes(digest) >> (64 - BITS)) + 0.5) / (1 << BITS)
