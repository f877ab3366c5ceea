"""Choosing an instance for each call."""

from meshkit.discovery.balancing.base import Balancer, Candidate, Done, Outcome
from meshkit.discovery.balancing.hashing import ConsistentHash
from meshkit.discovery.balancing.least import LeastOutstanding
from meshkit.discovery.balancing.names import (
    BALANCERS,
    DEFAULT,
    BalancerFactory,
    balancer_factory,
)
from meshkit.discovery.balancing.p2c import PowerOfTwo
from meshkit.discovery.balancing.random_choice import Random
from meshkit.discovery.balancing.round_robin import RoundRobin
from meshkit.discovery.balancing.weighted import Weighted

__all__ = [
    "BALANCERS",
    "DEFAULT",
    "Balancer",
    "BalancerFactory",
    "Candidate",
    "ConsistentHash",
    "Done",
    "LeastOutstanding",
    "Outcome",
    "PowerOfTwo",
    "Random",
    "RoundRobin",
    "Weighted",
    "balancer_factory",
]
