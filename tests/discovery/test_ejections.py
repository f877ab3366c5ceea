"""Who is set aside, for how long, how many at most, and the way back; on a simulated clock."""

import logging
import math

import pytest

from meshkit import ConfigError, EjectionPolicy
from meshkit.discovery.balancing import Outcome
from meshkit.discovery.ejection import Ejections, Reason
from meshkit.discovery.ejection.ejections import DRAIN_PAUSE, TRIAL
from meshkit.model import Status
from tests.discovery.clock import Clock
from tests.discovery.values import instance

OK, FAILED, REFUSED = Outcome.OK, Outcome.FAILED, Outcome.REFUSED
A, B, C, D = (instance(each).id for each in (1, 2, 3, 4))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejections(clock: Clock) -> Ejections:
    return made(clock, 4)


def made(clock: Clock, count: int, policy: EjectionPolicy | None = None) -> Ejections:
    ejections = Ejections(policy, service="users", clock=clock, later=clock.later)
    ejections.keep([instance(each) for each in range(1, count + 1)])
    return ejections


def fail(ejections: Ejections, instance_id: str, times: int = 5) -> None:
    for _ in range(times):
        ejections.observe(instance_id, FAILED, 0.01)


def try_it(ejections: Ejections, instance_id: str, outcome: Outcome, seconds: float = 0.01) -> None:
    ejections.trial(instance_id)(outcome, seconds)


# --- at once --------------------------------------------------------------------------------------


def test_nobody_is_aside_at_first(ejections: Ejections) -> None:
    assert ejections.avoided == ejections.look() == set()
    assert ejections.next_return == math.inf
    assert not ejections.due()
    assert ejections.describe() == ()


@pytest.mark.parametrize("outcome", [REFUSED, Outcome.WRONG])
def test_who_is_not_there_is_avoided_at_once(
    ejections: Ejections, clock: Clock, outcome: Outcome
) -> None:
    ejections.observe(A, outcome, 0.001)
    assert ejections.avoided == {A}
    clock.advance(0.99)
    assert not ejections.due()
    clock.advance(0.01)
    assert ejections.due()
    assert ejections.waiting() == [A]
    assert ejections.avoided == {A}  # until a good answer


def test_nobody_is_due_who_is_not_up(ejections: Ejections, clock: Clock) -> None:
    """Else each call would look for somebody who can't be tried."""
    ejections.observe(A, REFUSED, 0.001)
    down = instance(1, status=Status.DOWN)
    ejections.keep([down, *(instance(each) for each in (2, 3, 4))])
    clock.advance(100)
    assert not ejections.due()
    ejections.keep([instance(each) for each in (1, 2, 3, 4)])
    assert ejections.due()


def test_an_answer_shows_that_it_is_there(ejections: Ejections) -> None:
    """As when all are avoided, and therefore all are called."""
    ejections.observe(A, REFUSED, 0.001)
    ejections.observe(A, OK, 0.001)
    assert ejections.avoided == set()
    assert ejections.next_return == math.inf


def test_who_leaves_is_avoided_though_it_answers(ejections: Ejections, clock: Clock) -> None:
    ejections.observe(A, Outcome.DRAINING, 0.01)
    ejections.observe(A, OK, 0.01)
    ejections.observe(A, Outcome.DRAINING, 0.01)
    assert ejections.avoided == {A}
    clock.advance(DRAIN_PAUSE - 0.01)
    assert not ejections.due()
    clock.advance(0.01)
    assert ejections.due()


# --- failures in a row ----------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [FAILED, Outcome.TIMEOUT])
def test_failures_in_a_row(ejections: Ejections, outcome: Outcome) -> None:
    for _ in range(4):
        ejections.observe(A, outcome, 0.01)
    ejections.observe(A, OK, 0.01)
    for _ in range(4):
        ejections.observe(A, outcome, 0.01)
    assert ejections.avoided == set()
    ejections.observe(A, outcome, 0.01)
    assert ejections.avoided == {A}
    assert ejections.describe()[0].reason is Reason.FAILURES


@pytest.mark.parametrize("outcome", [Outcome.SHED, Outcome.CANCELLED])
def test_what_is_no_failure(ejections: Ejections, outcome: Outcome) -> None:
    for _ in range(100):
        ejections.observe(A, outcome, 0.01)
    assert ejections.avoided == set()


def test_a_row_goes_on_over_intervals_and_lists(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A, 3)
    clock.advance(10)
    ejections.keep([instance(each) for each in (1, 2, 9)])
    fail(ejections, A, 1)
    assert ejections.avoided == set()
    fail(ejections, A, 1)
    assert ejections.avoided == {A}


def test_never_is_never(clock: Clock) -> None:
    ejections = made(clock, 4, EjectionPolicy(failures=0))
    fail(ejections, A, 100)
    assert ejections.avoided == set()


def test_a_good_answer_to_an_ordinary_call_does_not_bring_back_who_failed(
    ejections: Ejections,
) -> None:
    fail(ejections, A)
    ejections.observe(A, OK, 0.01)
    assert ejections.avoided == {A}


# --- comparing ------------------------------------------------------------------------------------


def calls(
    ejections: Ejections, instance_id: str, *, ok: int, failed: int = 0, seconds: float = 0.01
) -> None:
    """Let calls end well and fail in turns, so that none make a row."""
    for number in range(max(ok, failed)):
        if number < failed:
            ejections.observe(instance_id, Outcome.SHED if number % 2 else FAILED, 0.01)
        if number < ok:
            ejections.observe(instance_id, OK, seconds)


def test_one_that_fails_more_often_than_the_others(clock: Clock) -> None:
    ejections = made(clock, 6)
    for each in range(2, 7):
        calls(ejections, instance(each).id, ok=98, failed=2)
    calls(ejections, A, ok=50, failed=50)
    assert ejections.avoided == set()  # nothing is compared per call
    clock.advance(10)
    assert ejections.avoided == {A}
    (seen,) = ejections.describe()
    assert (seen.reason, seen.seconds) == (Reason.SUCCESS_RATE, 10)


@pytest.mark.parametrize(
    ("count", "ok", "failed"),
    [
        (4, 50, 50),  # too few to tell
        (6, 5, 5),  # too few calls
        (6, 96, 4),  # it stands out, but not far
    ],
)
def test_nobody_stands_out(clock: Clock, count: int, ok: int, failed: int) -> None:
    ejections = made(clock, count)
    for each in range(2, count + 1):
        calls(ejections, instance(each).id, ok=100)
    calls(ejections, A, ok=ok, failed=failed)
    clock.advance(10)
    assert ejections.avoided == set()


def test_when_all_fail_alike_nobody_stands_out(clock: Clock) -> None:
    ejections = made(clock, 7)
    for each in range(1, 8):
        calls(ejections, instance(each).id, ok=70, failed=30)
    clock.advance(10)
    assert ejections.avoided == set()


def test_one_that_is_much_slower(ejections: Ejections, clock: Clock) -> None:
    for each in (B, C, D):
        calls(ejections, each, ok=100, seconds=0.02)
    calls(ejections, A, ok=20, seconds=0.4)
    clock.advance(10)
    assert ejections.avoided == {A}
    assert ejections.describe()[0].reason is Reason.LATENCY
    clock.advance(10)
    try_it(ejections, A, OK, seconds=0.11)  # more than 5 x 20 ms
    assert ejections.avoided == {A}
    clock.advance(20)
    try_it(ejections, A, OK, seconds=0.09)
    assert ejections.avoided == set()


@pytest.mark.parametrize(("usual", "slow"), [(0.02, 0.09), (0.001, 0.02)])
def test_one_that_is_a_little_slower(
    ejections: Ejections, clock: Clock, usual: float, slow: float
) -> None:
    """By its factor or, where all are quick, by what anybody would notice."""
    for each in (B, C, D):
        calls(ejections, each, ok=100, seconds=usual)
    calls(ejections, A, ok=100, seconds=slow)
    clock.advance(10)
    assert ejections.avoided == set()


def test_the_slow_one_of_two(clock: Clock) -> None:
    ejections = made(clock, 2)
    calls(ejections, A, ok=20, seconds=0.4)
    calls(ejections, B, ok=20, seconds=0.01)
    clock.advance(10)
    assert ejections.avoided == {A}


def test_each_interval_for_itself_and_none_without_calls(clock: Clock) -> None:
    ejections = made(clock, 2)
    calls(ejections, A, ok=19, seconds=0.4)
    calls(ejections, B, ok=19, seconds=0.01)
    clock.advance(10)
    calls(ejections, A, ok=1, seconds=0.4)
    calls(ejections, B, ok=1, seconds=0.01)
    clock.advance(10)
    assert ejections.avoided == set()
    assert clock.timers == 1
    clock.advance(10)
    assert clock.timers == 0
    calls(ejections, A, ok=1)
    assert clock.timers == 1
    ejections.close()
    ejections.close()
    assert clock.timers == 0
    calls(ejections, C, ok=1)
    assert clock.timers == 0


def test_the_way_back_of_one_is_not_cut_short_by_the_comparison(clock: Clock) -> None:
    ejections = made(clock, 3)
    fail(ejections, A)
    for each in (A, B, C):
        calls(ejections, each, ok=30, seconds=0.5 if each == A else 0.01)
    clock.advance(10)
    assert ejections.describe()[0].reason is Reason.FAILURES


# --- how many at most -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "failing", "avoided", "panic"),
    [
        (1, 1, 0, True),
        (2, 1, 1, False),
        (2, 2, 0, True),
        (3, 1, 1, False),
        (3, 2, 0, True),
        (4, 2, 2, False),
        (4, 3, 0, True),
        (10, 5, 5, False),
        (10, 6, 0, True),
    ],
)
def test_half_of_them_and_then_none(
    clock: Clock, count: int, failing: int, avoided: int, *, panic: bool
) -> None:
    ejections = made(clock, count)
    for each in range(1, failing + 1):
        fail(ejections, instance(each).id)
    assert (len(ejections.avoided), ejections.panic) == (avoided, panic)
    assert len(ejections.look()) == failing
    assert [each.avoided for each in ejections.describe()].count(True) == avoided


def test_a_smaller_share_goes_to_those_who_came_first(clock: Clock) -> None:
    ejections = made(clock, 10, EjectionPolicy(share=0.2))
    for each in (3, 2, 1):
        fail(ejections, instance(each).id)
        clock.advance(0.1)
    assert ejections.avoided == {B, C}
    clock.advance(1)
    try_it(ejections, C, OK)
    assert ejections.avoided == {A, B}


def test_the_dead_are_avoided_whatever_their_number(ejections: Ejections) -> None:
    for each in (A, B, C):
        ejections.observe(each, REFUSED, 0.001)
    assert ejections.avoided == {A, B, C}
    fail(ejections, D)
    assert ejections.avoided == {A, B, C}  # the last one
    assert ejections.panic


def test_a_share_is_of_those_who_are_there(clock: Clock) -> None:
    ejections = made(clock, 6)
    for each in (3, 4, 5, 6):
        ejections.observe(instance(each).id, REFUSED, 0.001)
    fail(ejections, A)
    assert A in ejections.avoided
    fail(ejections, B)
    assert {A, B} & ejections.avoided == set()


def test_one_that_failed_and_is_now_dead_counts_as_dead(ejections: Ejections) -> None:
    for each in (A, B, C):
        fail(ejections, each)
    assert ejections.panic
    ejections.observe(A, REFUSED, 0.001)
    assert ejections.avoided == {A}
    assert ejections.describe()[0].reason is Reason.REFUSED


def test_instances_that_are_not_up_do_not_count(clock: Clock) -> None:
    ejections = made(clock, 0)
    ejections.keep([instance(1), instance(2), *(instance(n, status=Status.DOWN) for n in (3, 4))])
    fail(ejections, A)
    fail(ejections, B)
    assert ejections.panic


def test_panic_is_one_line(ejections: Ejections, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "meshkit.discovery"):
        for each in (A, B, C, D):
            fail(ejections, each)
    assert [each.getMessage() for each in caplog.records] == [
        "users: 3 of 4 instances deserve to be set aside, so none of them is"
    ]


# --- the way back ---------------------------------------------------------------------------------


def test_the_pause_doubles_up_to_a_limit(ejections: Ejections, clock: Clock) -> None:
    ejections.observe(A, REFUSED, 0.001)
    pauses = []
    for _ in range(200):
        pauses.append(ejections.next_return - clock.now)
        clock.advance(pauses[-1])
        try_it(ejections, A, REFUSED)
    assert pauses[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert set(pauses[8:]) == {30}


def test_a_row_is_forgotten_by_the_interval(ejections: Ejections, clock: Clock) -> None:
    """As in Envoy: with each interval for which it was back, the next pause is half as long."""
    fail(ejections, A)
    for _ in range(3):
        clock.advance(ejections.next_return - clock.now)
        try_it(ejections, A, FAILED)
    clock.advance(8)
    try_it(ejections, A, OK)
    clock.advance(21)
    fail(ejections, A)
    assert ejections.next_return - clock.now == 4  # the third in a row
    clock.advance(4)
    try_it(ejections, A, OK)
    clock.advance(1000)
    fail(ejections, A)
    assert ejections.next_return - clock.now == 1
    assert ejections.describe()[0].times == 3


def test_calls_under_way_together_count_once(ejections: Ejections, clock: Clock) -> None:
    for _ in range(50):
        ejections.observe(A, REFUSED, 0.001)
    assert ejections.next_return == clock.now + 1
    assert ejections.ejected == {Reason.REFUSED: 1}


def test_a_trial_is_one_call(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.advance(1)
    assert ejections.waiting() == [A]
    done = ejections.trial(A)
    assert ejections.waiting() == []
    assert not ejections.due()
    assert ejections.avoided == {A}
    done(OK, 0.01)
    assert ejections.avoided == set()
    done(FAILED, 0.01)  # a second end of the same call says nothing
    assert ejections.avoided == set()


def test_a_cancelled_trial_says_nothing(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.advance(1)
    try_it(ejections, A, Outcome.CANCELLED)
    assert ejections.waiting() == [A]
    assert not ejections.to_probe(A)  # it has been


def test_a_trial_that_never_ends_is_given_up(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.advance(1)
    ejections.trial(A)
    clock.advance(TRIAL)
    assert ejections.waiting() == [A]


@pytest.mark.parametrize("outcome", [FAILED, Outcome.TIMEOUT, Outcome.SHED, REFUSED])
def test_a_bad_trial_is_the_next_pause(
    ejections: Ejections, clock: Clock, outcome: Outcome
) -> None:
    fail(ejections, A)
    clock.advance(1)
    try_it(ejections, A, outcome)
    assert ejections.next_return - clock.now == 2
    assert ejections.to_probe(A)


def test_a_trial_of_one_that_says_it_leaves(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.advance(1)
    try_it(ejections, A, Outcome.DRAINING)
    (seen,) = ejections.describe()
    assert (seen.reason, seen.seconds) == (Reason.DRAINING, DRAIN_PAUSE)


def test_a_probe_comes_first(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.advance(1)
    assert ejections.to_probe(A)
    ejections.probing(A)
    assert not ejections.due()
    ejections.probed(A, good=False)
    assert ejections.next_return - clock.now == 2
    clock.advance(2)
    ejections.probing(A)
    ejections.probed(A, good=True)
    assert ejections.due()
    assert not ejections.to_probe(A)
    assert ejections.avoided == {A}  # until the trial


def test_a_late_probe_is_not_heard(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.advance(1)
    ejections.probing(A)
    ejections.leave(A)
    ejections.probed(A, good=True)
    assert ejections.describe()[0].seconds == DRAIN_PAUSE
    ejections.keep([])
    ejections.probed(A, good=True)
    assert ejections.describe() == ()


def test_those_back_are_counted_anew(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A, 9)
    clock.advance(1)
    try_it(ejections, A, OK)
    fail(ejections, A, 4)
    assert ejections.avoided == set()


def test_who_left_takes_its_record_along(ejections: Ejections, clock: Clock) -> None:
    for each in (A, B):
        ejections.observe(each, REFUSED, 0.001)
    ejections.keep([instance(2), instance(3)])
    assert ejections.avoided == {B}
    ejections.keep([instance(1), instance(2), instance(3)])
    ejections.observe(A, REFUSED, 0.001)
    assert ejections.next_return == clock.now + 1


# --- what people see ------------------------------------------------------------------------------


def test_listeners_hear_of_every_change(ejections: Ejections, clock: Clock) -> None:
    heard: list[set[str]] = []
    ejections.on_change(lambda: heard.append(set(ejections.avoided)))
    ejections.observe(A, REFUSED, 0.001)
    ejections.observe(B, REFUSED, 0.001)
    ejections.observe(B, REFUSED, 0.001)
    clock.advance(1)
    try_it(ejections, A, OK)
    assert heard == [{A}, {A, B}, {B}]


def test_describing(ejections: Ejections, clock: Clock) -> None:
    ejections.observe(B, REFUSED, 0.001)
    clock.advance(0.25)
    fail(ejections, A)
    first, second = ejections.describe()
    assert (first.instance_id, first.reason, first.stage) == (B, Reason.REFUSED, "paused")
    assert (first.seconds, first.times, first.avoided) == (0.75, 1, True)
    assert second.instance_id == A
    clock.advance(1)
    ejections.trial(B)
    assert ejections.describe()[0].stage == "on trial"


def test_each_is_one_line_in_the_log(
    ejections: Ejections, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "meshkit.discovery"):
        fail(ejections, A, 20)
        clock.advance(1)
        try_it(ejections, A, FAILED)
        clock.advance(2)
        try_it(ejections, A, OK)
    assert [each.getMessage() for each in caplog.records] == [
        f"users: {A} is set aside for 1 s: its calls failed in a row",
        f"users: {A} is called again",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"failures": -1}, "failures is -1; it must be at least 0"),
        ({"interval": 0}, "interval is 0 s; it must be at least 0.001"),
        ({"pause": math.nan}, "pause is nan s"),
        ({"longest_pause": math.inf}, "longest_pause is inf s"),
        ({"longest_pause": 0.5}, "longest_pause is 0.5 s, shorter than pause"),
        ({"share": 1.5}, "share is 1.5, over 1"),
        ({"panic": -0.1}, "panic is -0.1; it must be at least 0"),
        ({"slowness": 0.5}, "slowness is 0.5; it must be over 1, or 0 for never"),
        ({"volume": 0}, "volume is 0; it must be at least 1"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EjectionPolicy(**options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.startswith(f"EjectionPolicy: {message}")
    assert "\n" not in text
