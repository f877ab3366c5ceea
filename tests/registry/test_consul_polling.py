"""The rules of blocking queries, without a server."""

import contextlib
import time

import pytest

from meshkit.registry.consul.polling import Pace, follow, following, wait


@pytest.mark.parametrize(
    ("index", "answered", "expected"),
    [(0, 7, 7), (7, 9, 9), (7, 7, 7), (9, 7, 0), (0, 0, 1), (1, 0, 0)],
)
def test_next_index(index: int, answered: int, expected: int) -> None:
    assert following(index, answered) == expected


async def test_first_query_does_not_wait_and_the_next_ones_do() -> None:
    asked: list[int | None] = []
    answers = [60, 61, 61, 13, 14]

    async def query(index: int | None, _: str) -> tuple[str, int]:
        asked.append(index)
        return str(answers[len(asked) - 1]), len(asked)

    async with contextlib.aclosing(follow(query)) as found:
        assert [await anext(found) for _ in answers] == [1, 2, 3, 4, 5]
    # 13 belongs to another life of the server: list again instead of waiting for 61.
    assert asked == [None, 60, 61, 61, None]


async def test_answers_that_are_not_new_come_at_a_lower_rate() -> None:
    """A watch on a service that never existed wakes at each change of any service."""
    asked = 0

    async def query(_index: int | None, _wait: str) -> tuple[str, str]:
        nonlocal asked
        asked += 1
        return str(asked), "same"

    async with contextlib.aclosing(follow(query, rate=100.0)) as found:
        started = time.monotonic()
        for _ in range(30):
            assert await anext(found) == "same"
        assert time.monotonic() - started >= 0.8  # 25 a second, after a burst of 5


async def test_an_error_ends_it() -> None:
    async def query(_index: int | None, _wait: str) -> tuple[str, int]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await anext(follow(query))


def test_wait_is_spread_around_half_a_minute() -> None:
    waits = {wait() for _ in range(50)}
    assert len(waits) > 10
    assert all(27_000 <= int(each.removesuffix("ms")) <= 33_000 for each in waits)


async def test_pace_lets_a_burst_through() -> None:
    pace = Pace(rate=0.01, burst=5)
    started = time.monotonic()
    for _ in range(5):
        await pace.turn()
    assert time.monotonic() - started < 5


async def test_pace_keeps_the_rate() -> None:
    pace = Pace(rate=20, burst=1)
    started = time.monotonic()
    for _ in range(21):
        await pace.turn()
    assert time.monotonic() - started >= 1.0 - 0.05
