"""Subsets: the same part as long as it is there, another one for each client, fair to all."""

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from meshkit.discovery.balancing.subset import ABOVE, SIZE, Subset
from meshkit.model import Instance
from tests.discovery.values import instance


def some(count: int) -> list[Instance]:
    return [instance(number) for number in range(count)]


def of(size: int | None, count: int, client: bytes = b"a") -> list[Instance]:
    return list(Subset(size, client=client).of(some(count)))


@pytest.mark.parametrize(
    ("size", "count", "used"),
    [
        (None, ABOVE, ABOVE),
        (None, ABOVE + 1, SIZE),
        (None, 1000, SIZE),
        (0, 1000, 1000),
        (20, 19, 19),
        (20, 20, 20),
        (20, 21, 20),
        (1, 1000, 1),
        (5, 0, 0),
    ],
)
def test_lists_are_cut_to_a_size(size: int | None, count: int, used: int) -> None:
    assert len(of(size, count)) == used


def test_a_client_keeps_its_part_and_another_has_another() -> None:
    assert of(20, 200, b"a") == of(20, 200, b"a")
    assert of(20, 200, b"a") != of(20, 200, b"b")


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 199), min_size=1, max_size=150))
def test_who_leaves_moves_nobody_else(gone: set[int]) -> None:
    subset = Subset(20, client=b"a")
    before = {each.id for each in subset.of(some(200))}
    left = [each for each in some(200) if each.id not in {instance(number).id for number in gone}]
    after = {each.id for each in subset.of(left)}
    staying = {each.id for each in left}
    assert before & staying <= after
    assert len(after) == 20
    assert {each.id for each in subset.of(some(200))} == before


def test_clients_spread_over_all() -> None:
    """500 clients of 20 out of 200: 50 for each instance, give or take seven."""
    counts: Counter[str] = Counter()
    for client in range(500):
        counts.update(each.id for each in of(20, 200, str(client).encode()))
    assert len(counts) == 200
    assert min(counts.values()) > 20
    assert max(counts.values()) < 80


def test_a_process_is_one_client_and_a_forked_child_another() -> None:
    code = (
        "import os\n"
        "from meshkit.discovery.balancing.subset import client_id\n"
        "own = client_id(os.getpid())\n"
        "assert own == client_id(os.getpid())\n"
        "child = os.fork()\n"
        "if not child: os._exit(client_id(os.getpid()) == own)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
