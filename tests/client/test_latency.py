"""The running estimate against the samples it stands for."""

from __future__ import annotations

import random

import pytest

from meshkit.client.guards import Guards
from meshkit.client.latency import Percentile


@pytest.mark.parametrize("percentile", [50, 90, 95, 99])
@pytest.mark.parametrize("median", [0.0005, 0.02, 1.5])
def test_it_comes_close_to_the_percentile_of_the_samples(percentile: float, median: float) -> None:
    source = random.Random(7)
    samples = [median * source.lognormvariate(0, 0.5) for _ in range(40_000)]
    estimate = Percentile(percentile)
    for each in samples:
        estimate.add(each)
    seen = []
    for each in samples[:5_000]:
        estimate.add(each)
        seen.append(estimate.seconds)
    truth = sorted(samples)[int(len(samples) * percentile / 100)]
    assert sum(seen) / len(seen) == pytest.approx(truth, rel=0.2)


def test_it_notices_within_some_calls_that_a_service_has_become_slow() -> None:
    estimate = Percentile(95)
    for _ in range(1_000):
        estimate.add(0.02)
    for _ in range(50):
        estimate.add(1.0)
    assert estimate.seconds > 0.9


def test_one_slow_answer_says_little() -> None:
    estimate = Percentile(95)
    for _ in range(1_000):
        estimate.add(0.02)
    estimate.add(60.0)
    assert estimate.seconds < 0.025


def test_it_never_sticks_at_nothing() -> None:
    estimate = Percentile(95)
    for _ in range(100_000):
        estimate.add(0.0)
    assert estimate.seconds > 0
    for _ in range(200):
        estimate.add(0.5)
    assert estimate.seconds > 0.4


def test_percentiles_of_a_service_are_kept_once() -> None:
    guards = Guards("users")
    assert guards.percentile(95) is guards.slow
    half = guards.percentile(50)
    assert guards.percentile(50) is half
    for _ in range(500):
        guards.answered(0.2)
    assert half.seconds == pytest.approx(0.2, rel=0.2)
    assert guards.slow.seconds == pytest.approx(0.2, rel=0.2)
