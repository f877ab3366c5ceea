"""One health state: rounds of checks with limits, and what it makes of their results."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from meshkit.server import health as health_module
from meshkit.server.checks import CheckRunner
from meshkit.server.health import Health, Phase
from meshkit.service import Check
from tests.support.waiting import aeventually


def health(
    *functions: Callable[[], object], timeout: float = 5.0, interval: float = 60.0
) -> Health:
    checks = [Check(function.__name__, None, function) for function in functions]
    return Health(checks, timeout=timeout, interval=interval)


async def error_of(function: Callable[[], object], limit: float = 5.0) -> str | None:
    return (await CheckRunner(Check("check", limit, function), 60).run()).error


async def test_a_check_passes_by_returning_anything_but_false() -> None:
    async def none() -> None: ...
    async def zero() -> int:
        return 0

    assert await error_of(none) is None
    assert await error_of(zero) is None
    assert await error_of(lambda: "") is None
    assert await error_of(lambda: False) == "returned False"


async def test_a_check_fails_by_raising() -> None:
    async def refused() -> None:
        raise ConnectionRefusedError("port 5432")

    def silent() -> None:
        raise ValueError

    assert await error_of(refused) == "ConnectionRefusedError: port 5432"
    assert await error_of(silent) == "ValueError"


async def test_a_check_fails_by_taking_too_long() -> None:
    async def hanging() -> None:
        await asyncio.sleep(60)

    def timing_out() -> None:
        raise TimeoutError("the database says so itself")

    began = time.perf_counter()
    assert await error_of(hanging, 0.1) == "no answer within 0.1 s"
    assert time.perf_counter() - began < 30
    assert await error_of(timing_out) == "TimeoutError: the database says so itself"


async def test_a_check_of_its_own_limit_ignores_the_common_one() -> None:
    async def slow() -> None:
        await asyncio.sleep(0.2)

    assert (await CheckRunner(Check("slow", 5, slow), 0.01).run()).error is None
    assert (await CheckRunner(Check("slow", None, slow), 0.01).run()).error is not None
    result = await CheckRunner(Check("slow", 5, slow), 0.01).run()
    assert result.latency > 0.15
    assert result.to_dict() == {
        "ok": True,
        "latency_ms": round(result.latency * 1000, 3),
        "error": None,
    }


async def test_a_check_without_async_runs_beside_the_loop_and_sees_the_context() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    seen: list[object] = []

    def sync() -> None:
        seen.extend([threading.current_thread() is threading.main_thread(), variable.get()])
        time.sleep(0.2)

    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    other = asyncio.create_task(turn())
    assert await error_of(sync) is None
    other.cancel()
    assert seen == [False, "set"]
    assert turns > 3


async def test_an_answer_that_is_awaitable_is_awaited() -> None:
    async def refused() -> None:
        raise ConnectionError("refused")

    function = lambda: refused()  # noqa: E731, PLW0108 - as a decorator without async leaves it
    assert await error_of(function) == "ConnectionError: refused"


async def test_a_hanging_thread_is_waited_for_and_not_started_again() -> None:
    release, calls = threading.Event(), 0

    def hanging() -> None:
        nonlocal calls
        calls += 1
        release.wait(30)

    runner = CheckRunner(Check("hanging", 0.1, hanging), 60)
    for _ in range(3):
        assert (await runner.run()).error == "no answer within 0.1 s"
    assert calls == 1
    release.set()

    async def passed() -> bool:
        return (await runner.run()).error is None

    await aeventually(passed)


def test_a_check_that_hangs_for_ever_does_not_keep_the_process() -> None:
    code = (
        "import asyncio, time\n"
        "from meshkit.server.health import Health\n"
        "from meshkit.service import Check\n"
        "async def main():\n"
        "    health = Health([Check('a', 0.1, lambda: time.sleep(60))], timeout=1, interval=1)\n"
        "    await health.check()\n"
        "    print(health.failures)\n"
        "    await health.aclose()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "a: no answer within 0.1 s\n"
    assert done.stderr == ""


async def test_checks_of_a_round_run_at_once() -> None:
    together = asyncio.Barrier(2)

    async def first() -> None:
        await together.wait()

    async def second() -> None:
        await together.wait()

    both = health(first, second)
    await both.check()
    assert [(result.name, result.error) for result in both.results] == [
        ("first", None),
        ("second", None),
    ]


async def test_questions_at_the_same_time_share_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "FRESH", 60)
    rounds = 0

    async def slow() -> None:
        nonlocal rounds
        rounds += 1
        await asyncio.sleep(0.1)

    one = health(slow)
    await asyncio.gather(*(one.check() for _ in range(20)))
    await one.check()
    assert rounds == 1
    monkeypatch.setattr(health_module, "FRESH", 0)
    await one.check()
    assert rounds == 2


async def test_a_question_that_is_given_up_does_not_end_the_round_for_others() -> None:
    async def slow() -> None:
        await asyncio.sleep(0.2)

    one = health(slow)
    impatient = asyncio.create_task(one.check())
    patient = asyncio.create_task(one.check())
    await asyncio.sleep(0.05)
    impatient.cancel()
    await patient
    assert one.results[0].error is None


async def test_ready_is_serving_and_passing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "FRESH", 0)
    broken = False

    def sometimes() -> bool:
        return not broken

    one = health(sometimes)
    heard: list[bool] = []
    one.on_change(heard.append)
    await one.check()
    assert (one.passing, one.ready) == (True, False)
    one.enter(Phase.SERVING)
    assert one.ready
    broken = True
    await one.check()
    assert (one.passing, one.ready, one.failures) == (False, False, "sometimes: returned False")
    broken = False
    await one.check()
    assert one.ready
    one.enter(Phase.DRAINING)
    assert (one.passing, one.ready) == (True, False)
    assert heard == [True, False, True, False]


async def test_changes_are_logged_once_and_with_the_reason(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "FRESH", 0)
    rounds = 0

    async def never() -> bool:
        nonlocal rounds
        rounds += 1
        return False

    one = health(never, interval=0.05)
    with caplog.at_level(logging.INFO, "meshkit"):
        await one.check()
        one.enter(Phase.SERVING)
        assert [each.getMessage() for each in caplog.records] == [
            "not ready: never: returned False"
        ]
        one.start()

        async def several() -> bool:
            return rounds >= 4

        await aeventually(several)
    assert len(caplog.records) == 1
    await one.aclose()


async def test_checks_go_on_by_themselves_until_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "FRESH", 0)
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        rounds += 1

    one = health(count, interval=0.05)
    one.start()
    one.start()

    async def several() -> bool:
        return rounds >= 2

    await aeventually(several)
    await one.aclose()
    await one.aclose()
    before = rounds
    await asyncio.sleep(0.2)
    assert rounds == before


async def test_without_checks_nothing_runs() -> None:
    one = health()
    one.start()
    await one.check()
    one.enter(Phase.SERVING)
    assert one.ready
    assert one.failures == ""
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"meshkit-health"})
    await one.aclose()


async def test_a_check_that_awaits_something_cancelled_has_failed_and_is_run_again() -> None:
    async def check() -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    runner = CheckRunner(Check("pool", None, check), 1.0)
    for _ in range(2):
        result = await runner.run()
        assert result.error == "CancelledError"
