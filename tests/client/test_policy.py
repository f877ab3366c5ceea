"""A wrong option fails where it is written, in one line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from meshkit import HedgePolicy, RetryPolicy, grpc_client, http_client
from meshkit.client.policy import CallPolicy
from meshkit.errors import ConfigError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"timeout": 0}, "timeout must be more than 0 s, not 0"),
    ({"retry": 3}, "retry= must be a RetryPolicy, not 3"),
    ({"retry": None}, "retry= must be a RetryPolicy, not None"),
    ({"hedge": 0.1}, "hedge= must be a HedgePolicy, not 0.1"),
    ({"breaker": True}, "breaker= must be a BreakerPolicy, not True"),
    ({"bulkhead": 10}, "bulkhead= must be a BulkheadPolicy, not 10"),
    ({"retries": 3}, "it got an unexpected keyword argument 'retries'"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_a_wrong_option_fails_in_the_class_body(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:

        class _Orders:
            users = http_client("users", **options)

    assert str(caught.value) == f"http_client('users'): {words}"
    with pytest.raises(ConfigError, match=re.escape(f"grpc_client('ledger'): {words}")):
        grpc_client(lambda channel: channel, "ledger", **options)


def test_equal_options_make_equal_policies() -> None:
    options: dict[str, Any] = {"retry": RetryPolicy(statuses=[503]), "hedge": HedgePolicy()}
    assert CallPolicy(**options) == CallPolicy(**options)
    assert hash(CallPolicy(**options)) == hash(CallPolicy(**options))
