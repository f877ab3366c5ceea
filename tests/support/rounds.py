"""Judging what a busy machine can spoil: in rounds, of which one has to be good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

ROUNDS = 4


async def best_of(play: Callable[[], Awaitable[object]], *, rounds: int = ROUNDS) -> None:
    """Play until a round has nothing to complain of; fail with what all of them said.

    Who is wrong is wrong in every round; who was not given the processor is not.

    Args:
        play: one round; returns what is against it, or something false.
        rounds: how many at most.
    """
    said = []
    for _ in range(rounds):
        against = await play()
        if not against:
            return
        said.append(str(against)[:500])
    pytest.fail("in none of the rounds:\n" + "\n".join(said))
