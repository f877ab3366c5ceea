"""Which of a service's instances a call may go to: routes, shares, and keys."""

from meshkit.discovery.routing.follow import RulesFollower
from meshkit.discovery.routing.route import Route, narrowed, parse_name
from meshkit.discovery.routing.router import Picker, Router

__all__ = ["Picker", "Route", "Router", "RulesFollower", "narrowed", "parse_name"]
