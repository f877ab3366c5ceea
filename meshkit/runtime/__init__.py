"""What happens to a service in time: start, registration, signals, stop."""

from meshkit.runtime.lifecycle import Runtime

__all__ = ["Runtime"]
