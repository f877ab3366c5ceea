"""The concurrency limit on a simulated clock: overload, recovery, and what must not be shed."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from meshkit.server.shedding import Limiter
from meshkit.server.shedding.run_delay import RunDelay, ThreadRunDelay
from tests.server.shedding_models import (
    Loop,
    Pool,
    Service,
    World,
    arrivals,
    constant,
    spread,
)


def step(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda now: high if start <= now < end else low


def pool(
    service: Service,
    rate: Callable[[float], float],
    *,
    until: float,
    size: int = 100_000,
    deadline: float = 1.0,
    adaptive: bool = True,
) -> World:
    world = World()
    limiter = Limiter(clock=world.clock, adaptive=adaptive)
    Pool(limiter, world, service, size=size, deadline=deadline).run(rate, until=until)
    return world


def loop(
    service: Service, rate: Callable[[float], float], *, until: float, adaptive: bool = True
) -> World:
    world = World()
    limiter = Limiter(clock=world.clock, adaptive=adaptive)
    Loop(limiter, world, service).run(rate, until=until)
    return world


@pytest.mark.parametrize(
    ("size", "seconds"), [(10, 0.005), (400, 0.05)], ids=["10 connections", "400 tasks"]
)
@pytest.mark.parametrize("times", [1.5, 3, 10])
def test_a_full_pool_stays_busy_with_calls_that_are_answered_in_time(
    size: int, seconds: float, times: float
) -> None:
    capacity = size / seconds
    world = pool(spread(seconds), step(capacity / 2, capacity * times, 5, 15), until=20, size=size)
    # What came before the limit was there, at ten times the capacity, takes 4 s.
    during, after = world.between(10, 15), world.between(16, 19)
    assert during.in_time > 0.95 * capacity * 5
    assert after.refused == 0
    assert after.in_time == after.answered > 0


def test_without_a_limit_the_same_overload_leaves_nothing_in_time() -> None:
    world = pool(spread(0.005), step(1000, 6000, 5, 10), until=15, size=10, adaptive=False)
    assert world.between(6, 15).in_time < 0.2 * world.between(6, 15).offered
    assert world.between(11, 14).in_time == 0


@pytest.mark.parametrize("seconds", [0.0005, 0.005, 0.02])
def test_an_event_loop_that_only_computes_stays_busy_with_calls_in_time(seconds: float) -> None:
    capacity = 1 / seconds
    world = loop(constant(seconds), step(capacity / 2, capacity * 3, 5, 10), until=15)
    # The rest goes into the refusals, which take 0.1 ms each.
    spent = world.between(6, 10).refused * 0.0001
    assert world.between(6, 10).in_time > 0.9 * capacity * (4 - spent)
    assert world.between(12, 14).refused == 0

    off = loop(constant(seconds), step(capacity / 2, capacity * 3, 5, 10), until=15, adaptive=False)
    assert off.between(7, 10).in_time == 0


@pytest.mark.parametrize("sees", [True, False])
def test_a_processor_that_others_take_for_tenths_of_a_second_is_no_overload(*, sees: bool) -> None:
    def others(rng: random.Random, _seconds: float) -> float:
        return rng.uniform(0.2, 0.5) if rng.random() < 0.01 else 0.0

    world = World()
    limiter = Limiter(clock=world.clock, delay=RunDelay(lambda: world.delayed) if sees else None)
    Loop(limiter, world, constant(0.005), others=others).run(lambda _now: 40, until=120)
    # Without a look at it, it passes for one: it makes everything late.
    assert (world.between(0, 120).refused == 0) == sees


@pytest.mark.parametrize("seconds", [0.0005, 0.005])
def test_an_overload_beside_programs_that_take_two_thirds_of_the_processor(seconds: float) -> None:
    world, capacity = World(), 1 / seconds / 3
    limiter = Limiter(clock=world.clock, delay=RunDelay(lambda: world.delayed))
    served = Loop(limiter, world, constant(seconds), others=lambda _rng, seconds: 2 * seconds)
    served.run(step(capacity / 2, capacity * 3, 5, 12), until=17)
    spent = world.between(7, 12).refused * 0.0001
    assert world.between(7, 12).in_time > 0.9 * capacity * (5 - spent)
    assert world.between(14, 16).refused == 0


def test_bursts_are_no_overload() -> None:
    world = World()
    limiter = Limiter(clock=world.clock)
    steady = list(arrivals(lambda _now: 20, 60, 1))
    bursts = [float(second) for second in range(5, 60) for _ in range(30)]
    Loop(limiter, world, constant(0.01)).serve(iter(sorted(steady + bursts)))
    assert world.between(0, 60).refused == 0


def test_a_limit_that_was_a_mistake_is_gone_within_a_second() -> None:
    """As after a pause of a service that answers 1000 calls at once."""

    def service(_rng: random.Random, now: float) -> tuple[str, float]:
        return "GET /", 6 - now if 5 <= now < 6 else 0.05

    world = pool(service, lambda _now: 4000, until=15)
    assert world.between(8, 15).refused == 0


def test_the_wait_for_a_processor_is_counted_between_any_two_moments() -> None:
    total = 0.0
    delay = RunDelay(lambda: total)
    assert delay.since(0.0, 1.0) == 0.0  # what was before the first look is not known
    total = 0.5
    assert delay.since(1.0, 2.0) == 0.5
    assert delay.since(1.5, 2.0) == 0.25  # as if it had been even
    total = 4.0
    assert delay.since(2.0, 3.0) == 1.0  # never more than has passed
    assert delay.since(3.0, 3.0) == 0.0


def test_the_kernel_counts_what_others_take() -> None:
    """Another process computes on the same processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
            rounds = [waiting_and_computing(seconds=0.3) for _ in range(8)]
            other.kill()
    finally:
        os.sched_setaffinity(0, allowed)
    assert all(0 <= waited <= passed for waited, _, passed in rounds)
    # Of a machine that stood still as a whole, the kernel tells nothing.
    assert any(
        waited > 0.03 and waited + computed == pytest.approx(passed, abs=0.02)
        for waited, computed, passed in rounds
    ), rounds


def waiting_and_computing(*, seconds: float) -> tuple[float, float, float]:
    """Compute, and return how long this thread waited, how long it ran, and how long both took."""
    clock, delay = time.perf_counter, ThreadRunDelay()
    began, own = clock(), time.thread_time()
    delay.since(began, began)
    while clock() - began < seconds:
        pass
    ended = clock()
    return delay.since(began, ended), time.thread_time() - own, ended - began


def test_a_lasting_overload_does_not_creep_upwards() -> None:
    capacity = 2000.0
    world = pool(spread(0.005), step(1000, 3 * capacity, 5, 120), until=120, size=10)
    minutes = [world.between(start, start + 20) for start in (10, 50, 100)]
    for span in minutes:
        assert span.in_time == span.answered > 0.95 * capacity * 20
    # In flight before the limit was found is the most that ever was.
    assert world.most_in_flight < 3 * capacity


def test_slow_answers_at_low_concurrency_are_never_shed() -> None:
    world = pool(spread(5.0), step(1, 3, 100, 300), until=400, size=16, deadline=60)
    assert world.between(0, 400).refused == 0


def test_a_jump_to_a_load_that_is_served_is_not_shed() -> None:
    world = pool(spread(0.05), step(10, 4000, 5, 20), until=20, size=1000)
    assert world.between(0, 20).refused == 0


def test_a_few_stuck_calls_do_not_make_an_overload() -> None:
    def service(rng: random.Random, _now: float) -> tuple[str, float]:
        return "GET /", (10.0 if rng.random() < 0.02 else rng.expovariate(1 / 0.02))

    assert pool(service, lambda _now: 500, until=120).between(0, 120).refused == 0


def test_a_change_in_the_mix_of_routes_is_no_overload() -> None:
    def service(rng: random.Random, now: float) -> tuple[str, float]:
        reports = 0.01 if now < 30 else 0.6
        return ("report", 0.8) if rng.random() < reports else ("item", 0.002)

    assert pool(service, lambda _now: 500, until=60).between(0, 60).refused == 0


def test_failures_do_not_pass_for_fast_answers() -> None:
    now = 0.0
    limiter = Limiter(clock=lambda: now)

    def answers(latency: float, *, ok: bool, spans: int) -> None:
        nonlocal now
        for _ in range(spans * 20):
            came = limiter.acquire()
            assert came is not None
            now += latency
            limiter.release(came, "GET /", ok=ok)

    answers(0.1, ok=True, spans=10)
    answers(0.001, ok=False, spans=1000)  # the database is away for 20 s
    for _ in range(40):
        answers(0.1, ok=True, spans=1)
    assert limiter.limit == math.inf


def test_a_dependency_that_got_slower_for_all_is_found_out_soon() -> None:
    def service(_rng: random.Random, now: float) -> tuple[str, float]:
        return "GET /", 0.05 if now < 5 else 0.25

    world = pool(service, lambda _now: 2000, until=20)
    assert world.between(0, 5).refused == 0
    assert world.between(5, 8).refused < 0.2 * world.between(5, 8).offered
    assert world.between(8, 20).refused == 0


def test_calls_that_hang_do_not_keep_everybody_else_out() -> None:
    world = World()
    limiter = Limiter(clock=world.clock)
    for latency in [0.01] * 200 + [1.0] * 60:
        came = limiter.acquire()
        assert came is not None
        world.now += latency
        limiter.release(came, "GET /")
        if limiter.limit < math.inf:
            break
    while limiter.acquire() is not None:
        pass  # and is never released
    let_in = 0
    for _ in range(100):
        world.now += 0.1
        let_in += limiter.acquire() is not None
    assert let_in > 50


def test_a_fixed_limit_holds_whatever_the_latency() -> None:
    limiter = Limiter(adaptive=False, ceiling=2)
    first, second = limiter.acquire(), limiter.acquire()
    assert first is not None
    assert second is not None
    assert limiter.acquire() is None
    limiter.release(first, "GET /")
    assert limiter.acquire() is not None
    assert limiter.refused == 1


def test_the_fixed_limit_is_the_ceiling_of_the_adaptive_one() -> None:
    world = World()
    limiter = Limiter(clock=world.clock, ceiling=12)
    Pool(limiter, world, spread(0.005), size=10).run(step(1000, 6000, 5, 10), until=15)
    assert world.most_in_flight == 12
    assert world.between(6, 10).in_time > 0.95 * 2000 * 4


def test_kinds_without_end_take_no_memory_without_end() -> None:
    limiter = Limiter()
    for number in range(5000):
        came = limiter.acquire()
        assert came is not None
        limiter.release(came, f"GET /{number}")
    assert len(limiter._baseline._kinds) <= 1001
