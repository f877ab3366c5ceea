"""Drawing by weight at a cost that does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")

# Slot i of a table is (cut, one, other): a number in [i, i + 1) below the cut means the one.
Table = list[tuple[float, Item, Item]]


def alias_table(items: Sequence[Item], weights: Sequence[float]) -> Table[Item]:
    """Return a table to :func:`draw` from: Walker's alias method, built as by Vose.

    Args:
        items: what is drawn.
        weights: of each, more than 0.
    """
    if not items or min(weights) == max(weights):
        return [(index + 1.0, item, item) for index, item in enumerate(items)]
    scale = len(items) / sum(weights)
    share = [weight * scale for weight in weights]  # of one slot; 1 on average
    table: Table[Item] = [(index + 1.0, item, item) for index, item in enumerate(items)]
    small = [index for index, each in enumerate(share) if each < 1.0]
    large = [index for index, each in enumerate(share) if each >= 1.0]
    while small and large:
        poor, rich = small.pop(), large[-1]
        table[poor] = (poor + share[poor], items[poor], items[rich])
        share[rich] -= 1.0 - share[poor]
        if share[rich] < 1.0:
            small.append(large.pop())
    return table


def draw(table: Table[Item], random: Callable[[], float]) -> Item:
    """Return one item of a table that is not empty; written out where nanoseconds count."""
    number = random() * len(table)
    cut, one, other = table[int(number)]
    return one if number < cut else other


def left_by_weight(
    items: Sequence[Item], weights: Sequence[float], random: Callable[[], float]
) -> Item:
    """Return one of a few items, drawn by weight without a table."""
    number = random() * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        number -= weight
        if number < 0:
            return item
    return items[-1]
