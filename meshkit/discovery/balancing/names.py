"""Balancers by name, and those that users bring along."""

from __future__ import annotations

from collections.abc import Callable

from meshkit.discovery.balancing.base import Balancer
from meshkit.discovery.balancing.hashing import ConsistentHash
from meshkit.discovery.balancing.least import LeastOutstanding
from meshkit.discovery.balancing.p2c import PowerOfTwo
from meshkit.discovery.balancing.random_choice import Random
from meshkit.discovery.balancing.round_robin import RoundRobin
from meshkit.discovery.balancing.weighted import Weighted
from meshkit.errors import ConfigError

BalancerFactory = Callable[[], Balancer]

DEFAULT = "p2c"
BALANCERS: dict[str, BalancerFactory] = {
    "p2c": PowerOfTwo,
    "round_robin": RoundRobin,
    "weighted": Weighted,
    "least": LeastOutstanding,
    "hash": ConsistentHash,
    "random": Random,
}


def balancer_factory(balancer: str | BalancerFactory) -> BalancerFactory:
    """Return what makes a balancer.

    Args:
        balancer: a name, or a class or function of no arguments; it is called once for each list
            of instances (transport and route), as one balancer serves one list.

    Raises:
        ConfigError: the name is unknown, or it can't be called.
    """
    if isinstance(balancer, str):
        if balancer not in BALANCERS:
            raise ConfigError(f"no balancer {balancer!r}; there are: {', '.join(BALANCERS)}")
        return BALANCERS[balancer]
    if not callable(balancer):
        raise ConfigError(
            f"balancer is {balancer!r}, neither a name ({', '.join(BALANCERS)}) nor a class or"
            " function that makes one; a balancer itself can't be shared by several lists"
        )
    return balancer
