from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, strategies as st

from meshkit.client.breaker import Breaker, BreakerPolicy
from meshkit.client.guards import Guards
from meshkit.errors import BreakerOpen, CallError, ConfigError
from tests.client.clock import Clock

POLICY = BreakerPolicy(failures=0.5, volume=10, window=10, pause=5, probes=2)


def calls(breaker: Breaker, *outcomes: bool | None) -> None:
    for failed in outcomes:
        breaker.leave(breaker.enter(), failed=failed)


def opened(clock: Clock) -> Breaker:
    breaker = Breaker("users", POLICY, clock)
    calls(breaker, *[True] * 10)
    assert breaker.state.value == "open"
    return breaker


def test_it_opens_when_more_than_the_share_failed() -> None:
    breaker = Breaker("users", POLICY, Clock())
    calls(breaker, *[False, True] * 10)
    assert breaker.state.value == "closed"
    calls(breaker, True)
    assert (breaker.state.value, breaker.opened) == ("open", 1)
    with pytest.raises(BreakerOpen) as caught:
        breaker.enter()
    assert str(caught.value) == (
        "users: not called, as too many calls failed (circuit breaker open, tried again in 5.0 s)"
    )
    assert isinstance(caught.value, CallError)


def test_a_few_failures_do_not_open_it() -> None:
    breaker = Breaker("users", POLICY, Clock())
    calls(breaker, *[True] * 9)
    assert breaker.state.value == "closed"


def test_old_failures_are_forgotten() -> None:
    clock = Clock()
    breaker = Breaker("users", POLICY, clock)
    calls(breaker, *[True] * 9)
    clock.pass_(10)
    calls(breaker, *[True] * 9)
    assert breaker.state.value == "closed"


def test_what_says_nothing_is_not_counted() -> None:
    breaker = Breaker("users", POLICY, Clock())
    calls(breaker, *[None] * 50, *[True] * 9)
    assert breaker.state.value == "closed"


def test_half_open_lets_a_few_through_and_closes_on_success() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(5)
    first, second = breaker.enter(), breaker.enter()
    assert breaker.state.value == "half-open"
    with pytest.raises(BreakerOpen, match=r"half-open, 2 calls are trying it\)$"):
        breaker.enter()
    breaker.leave(first, failed=False)
    third = breaker.enter()
    breaker.leave(second, failed=False)
    assert breaker.state.value == "closed"
    breaker.leave(third, failed=True)  # of another turn
    calls(breaker, *[False] * 5)
    assert breaker.state.value == "closed"


def test_half_open_opens_again_on_failure() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(5)
    calls(breaker, False, True)
    assert (breaker.state.value, breaker.opened) == ("open", 2)
    with pytest.raises(BreakerOpen):
        breaker.enter()
    clock.pass_(5)
    calls(breaker, False, False)
    assert breaker.state.value == "closed"


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.pass_(5)
    calls(breaker, None, None, None, False, False)
    assert breaker.state.value == "closed"


def test_calls_that_began_before_it_opened_do_not_count_as_probes() -> None:
    clock = Clock()
    breaker = Breaker("users", POLICY, clock)
    early = [breaker.enter() for _ in range(30)]
    for ticket in early[:10]:
        breaker.leave(ticket, failed=True)
    clock.pass_(5)
    probe = breaker.enter()
    for ticket in early[10:]:
        breaker.leave(ticket, failed=False)
    assert breaker.state.value == "half-open"
    breaker.leave(probe, failed=False)
    calls(breaker, False)
    assert breaker.state.value == "closed"


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["enter", "ok", "failed", "nothing"]),
            st.floats(0.1, 6.0).map(lambda seconds: f"wait {seconds}"),
        ),
        max_size=200,
    )
)
def test_whatever_happens_it_lets_calls_through_in_the_end(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker("users", POLICY, clock)
    tickets: list[int] = []
    ends = {"ok": False, "failed": True, "nothing": None}
    for step in steps:
        if step.startswith("wait"):
            clock.pass_(float(step.split()[1]))
        elif step == "enter":
            try:
                tickets.append(breaker.enter())
            except BreakerOpen:
                assert breaker.state.value != "closed"
        elif tickets:
            breaker.leave(tickets.pop(0), failed=ends[step])
    for ticket in tickets:
        breaker.leave(ticket, failed=False)
    clock.pass_(5)
    calls(breaker, False, False)
    assert breaker.state.value == "closed"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"failures": 1.0}, "failures must be a share from 0 to less than 1, not 1"),
        ({"failures": -0.1}, "failures must be a share"),
        ({"volume": 0}, "volume must be more than 0, not 0"),
        ({"window": -1.0}, "window must be more than 0, not -1"),
        ({"pause": 0.0}, "pause must be more than 0, not 0"),
        ({"probes": 0}, "probes must be more than 0, not 0"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=f"^BreakerPolicy: {words}"):
        dataclasses.replace(POLICY, **wrong)  # type: ignore[arg-type]


def test_clients_with_equal_policies_share_one() -> None:
    guards = Guards("users")
    assert guards.breaker(BreakerPolicy()) is guards.breaker(BreakerPolicy())
    assert guards.breaker(BreakerPolicy()) is not guards.breaker(POLICY)
