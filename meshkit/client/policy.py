"""How calls to one service are made: what clients are declared with."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

from meshkit.client.retry import RetryPolicy


class PolicyOptions(TypedDict, total=False):
    """What a client can be made with, beside its service.

    Keys:
        timeout: seconds for a whole call, retries included; the setting ``call_timeout`` if None.
        retry: when a failed attempt is followed by one on another instance.
    """

    timeout: float | None
    retry: RetryPolicy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The same as a value; equal policies share a client."""

    timeout: float | None = None
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
