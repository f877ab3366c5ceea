"""How calls to one service are made: what clients are declared with."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Self, TypedDict

from meshkit.client.breaker import BreakerPolicy
from meshkit.client.bulkhead import BulkheadPolicy
from meshkit.client.hedge import HedgePolicy
from meshkit.client.retry import RetryPolicy
from meshkit.discovery.balancing import BalancerFactory, balancer_factory
from meshkit.discovery.balancing.slow_start import SLOW_START
from meshkit.discovery.ejection import EjectionPolicy
from meshkit.discovery.routing import Route
from meshkit.discovery.routing.values import Sticky
from meshkit.errors import ConfigError
from meshkit.numbers import check_numbers

SLOW_START_MOST = 3600.0
KINDS = {
    "retry": RetryPolicy,
    "hedge": HedgePolicy,
    "breaker": BreakerPolicy,
    "bulkhead": BulkheadPolicy,
    "ejection": EjectionPolicy,
}


class PolicyOptions(TypedDict, total=False):
    """What a client can be made with, beside its service.

    Keys:
        timeout: seconds for a whole call, retries included; the setting ``call_timeout`` if None.
        retry: when an attempt is followed by one on another instance.
        balancer: how an instance is chosen: p2c, round_robin, weighted, least, hash, random, or
            a class or function that makes a balancer; the setting ``balancer`` if None.
        slow_start: seconds until a new instance has its full share of the calls; 0 for at once.
        subset: instances that this client uses at most, 0 for all; None for 50 of lists of more
            than 100.
        ejection: when instances are set aside for failing or lagging; the mesh's if None.
        hedge: when an idempotent call is also sent to a second instance, to cut the slowest
            answers; never if None.
        breaker: when calls fail at once because too many have failed; never if None.
        bulkhead: how many calls to the service may be under way; any number if None.
        route: the instances that may be called; ``"users@v2"`` as the service is short for a tag.
        sticky: a header, ``"x-user-id"``, or ``"cookie:session"``, of the call or of the one being
            handled: calls with one value stay together. Then the balancer is hash if None.
        max_answer: bytes that an answer to an HTTP call may have, decompressed; any number if None.
            Streams may have more.
    """

    timeout: float | None
    retry: RetryPolicy
    balancer: str | BalancerFactory | None
    slow_start: float
    subset: int | None
    ejection: EjectionPolicy | None
    hedge: HedgePolicy | None
    breaker: BreakerPolicy | None
    bulkhead: BulkheadPolicy | None
    route: Route | None
    sticky: str | None
    max_answer: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """The same as a value; equal policies share a client."""

    timeout: float | None = None
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    balancer: str | BalancerFactory | None = None
    slow_start: float = SLOW_START
    subset: int | None = None
    hedge: HedgePolicy | None = None
    breaker: BreakerPolicy | None = None
    bulkhead: BulkheadPolicy | None = None
    ejection: EjectionPolicy | None = None
    route: Route | None = None
    sticky: str | None = None
    max_answer: int | None = None

    @classmethod
    def of(cls, options: PolicyOptions) -> Self:
        """Return the policy that was asked for.

        Raises:
            ConfigError: there is no such option, or it can't have this value.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
                raise ConfigError(f"no option {name!r}; {hint}")
        return cls(**options)

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"timeout must be more than 0 s, not {self.timeout:g}")
        for name, kind in KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name == "retry"):
                article = "an" if kind is EjectionPolicy else "a"
                raise ConfigError(f"{name}= must be {article} {kind.__name__}, not {value!r}")
        if self.balancer is not None:
            balancer_factory(self.balancer)
        if not 0 <= self.slow_start <= SLOW_START_MOST:
            most = f"{SLOW_START_MOST:g}"
            raise ConfigError(f"slow_start is {self.slow_start:g} s, not between 0 and {most}")
        if self.max_answer is not None and self.max_answer < 1:
            raise ConfigError(f"max_answer is {self.max_answer}; it must be at least 1 byte")
        if self.subset is not None and self.subset < 0:
            raise ConfigError(f"subset is {self.subset}; it must be at least 0 (for all)")
        if self.route is not None and not isinstance(self.route, Route):
            raise ConfigError(
                f"route= must be a Route, as in Route(tags=('v2',)), not {self.route!r}"
            )
        if self.sticky is not None:
            Sticky(self.sticky)
