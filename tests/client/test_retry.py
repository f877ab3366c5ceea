from __future__ import annotations

import dataclasses

import pytest

from meshkit.client.retry import IDEMPOTENT_METHODS, CallStats, RetryPolicy
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
