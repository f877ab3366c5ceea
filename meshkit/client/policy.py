"""How calls to one service are made: what clients are declared with."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

from meshkit.client.breaker import BreakerPolicy
from meshkit.client.bulkhead import BulkheadPolicy
from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import RetryPolicy


class PolicyOptions(TypedDict, total=False):
    """What a client can be made with, beside its service.

    Keys:
        timeout: seconds for a whole call, retries included; the setting ``call_timeout`` if None.
        retry: when an attempt is followed by one on another instance.
        hedge: when an idempotent call is also sent to a second instance, to cut the slowest
            answers; never if None.
        breaker: when calls fail at once because too many have failed; never if None.
        bulkhead: how many calls to the service may be under way; any number if None.
    """

    timeout: float | None
    retry: RetryPolicy
    hedge: HedgePolicy | None
    breaker: BreakerPolicy | None
    bulkhead: BulkheadPolicy | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The same as a value; equal policies share a client."""

    timeout: float | None = None
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    hedge: HedgePolicy | None = None
    breaker: BreakerPolicy | None = None
    bulkhead: BulkheadPolicy | None = None
