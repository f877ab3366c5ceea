"""Load shedding: how many requests at once this process answers in time, and no more."""

from meshkit.server.shedding.baseline import Baseline
from meshkit.server.shedding.limiter import Limiter

__all__ = ["Baseline", "Limiter"]
