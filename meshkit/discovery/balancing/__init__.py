"""Choosing an instance for each call."""

from meshkit.discovery.balancing.base import Balancer, Candidate, Done, Outcome
from meshkit.discovery.balancing.round_robin import RoundRobin

__all__ = ["Balancer", "Candidate", "Done", "Outcome", "RoundRobin"]
