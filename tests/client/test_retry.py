from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, strategies as st

from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import GRPC_CODES, IDEMPOTENT_METHODS, CallStats, RetryPolicy
from meshkit.errors import ConfigError


@pytest.mark.parametrize("idempotent", [True, False])
def test_what_surely_had_no_effect_goes_on_however_often(*, idempotent: bool) -> None:
    policy = RetryPolicy(attempts=1)
    assert policy.may_retry(sent=0, unprocessed=True, idempotent=idempotent)
    assert policy.may_retry(sent=50, unprocessed=True, idempotent=idempotent)


def test_what_may_have_had_an_effect_is_repeated_only_when_idempotent() -> None:
    policy = RetryPolicy()
    assert policy.may_retry(sent=1, unprocessed=False, idempotent=True)
    assert not policy.may_retry(sent=1, unprocessed=False, idempotent=False)


def test_attempts_count_those_that_may_have_been_processed() -> None:
    policy = RetryPolicy(attempts=3)
    allowed = [
        policy.may_retry(sent=sent, unprocessed=False, idempotent=True) for sent in (1, 2, 3)
    ]
    assert allowed == [True, True, False]
    assert not RetryPolicy(attempts=1).may_retry(sent=1, unprocessed=False, idempotent=True)


@pytest.mark.parametrize("unprocessed", [True, False])
def test_a_body_that_is_gone_can_not_be_sent_again(*, unprocessed: bool) -> None:
    policy = RetryPolicy()
    assert not policy.may_retry(sent=1, unprocessed=unprocessed, idempotent=True, replayable=False)


def test_idempotent_methods_are_those_of_the_standard() -> None:
    assert sorted(IDEMPOTENT_METHODS) == ["DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"]


@pytest.mark.parametrize("attempts", [0, -1])
def test_less_than_one_attempt_is_refused(attempts: int) -> None:
    with pytest.raises(ConfigError, match=f"attempts must be at least 1, not {attempts}"):
        RetryPolicy(attempts=attempts)


def test_a_policy_is_a_value() -> None:
    assert RetryPolicy(attempts=2) == RetryPolicy(attempts=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RetryPolicy().attempts = 7  # type: ignore[misc]


def test_counters_start_at_nothing() -> None:
    assert CallStats() == CallStats(calls=0, failed=0, retried=0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"try_timeout": 0}, "try_timeout must be more than 0 s, not 0; None: never"),
        ({"backoff": -1}, "backoff must be from 0 to backoff_cap, not -1 with a cap of 0.5"),
        ({"backoff": 2}, "backoff must be from 0 to backoff_cap, not 2 with a cap of 0.5"),
        ({"statuses": {200}}, "statuses must be from 400 to 599, not 200"),
        ({"codes": {"OK"}}, "codes must be names of gRPC errors, as in 'UNAVAILABLE', not 'OK'"),
    ],
)
def test_nonsense_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RetryPolicy(**wrong)
    assert str(caught.value) == f"RetryPolicy: {words}"


def test_policies_written_with_lists_are_equal_to_those_with_sets() -> None:
    ours = RetryPolicy(statuses=[503, 502, 504], codes=["UNAVAILABLE"])
    assert ours == RetryPolicy()
    assert hash(ours) == hash(RetryPolicy())


def test_every_name_of_grpc_is_known() -> None:
    grpc = pytest.importorskip("grpc")
    assert {code.name for code in grpc.StatusCode} - {"OK"} == GRPC_CODES


@given(before=st.integers(0, 100), at_least=st.floats(0, 5))
def test_a_pause_is_anything_up_to_a_bound_that_doubles(before: int, at_least: float) -> None:
    policy = RetryPolicy(backoff=0.1, backoff_cap=2.0)
    bound = min(0.1 * 2**before, 2.0)
    assert at_least <= policy.pause(before, at_least) <= at_least + bound


def test_patience_is_never_less_than_a_slow_service_needs() -> None:
    policy = RetryPolicy(try_timeout=0.4)
    assert policy.patience(0.02) == 0.4
    assert policy.patience(1.0) == 3.0
    assert RetryPolicy(try_timeout=None).patience(1.0) is None
    assert RetryPolicy(attempts=1).patience(1.0) is None


def test_a_hedge_has_a_delay_or_a_percentile() -> None:
    assert HedgePolicy() == HedgePolicy(percentile=95)
    assert HedgePolicy(delay=0.05).percentile is None
    with pytest.raises(ConfigError, match=r"^HedgePolicy: give either delay= or percentile="):
        HedgePolicy(delay=1, percentile=95)
    with pytest.raises(ConfigError, match=r"^HedgePolicy: delay must be more than 0 s, not 0$"):
        HedgePolicy(delay=0)
    for wrong in (0, 49, 100):
        with pytest.raises(ConfigError, match=f"percentile must be from 50 to 99.9, not {wrong}$"):
            HedgePolicy(percentile=wrong)
