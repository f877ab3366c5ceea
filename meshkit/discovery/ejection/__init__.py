"""Setting aside instances that fail or lag, and taking them back when they are well again."""

from meshkit.discovery.ejection.ejections import Ejections
from meshkit.discovery.ejection.policy import EjectionPolicy
from meshkit.discovery.ejection.probing import Probe, Prober
from meshkit.discovery.ejection.record import Ejected, Reason

__all__ = ["Ejected", "EjectionPolicy", "Ejections", "Probe", "Prober", "Reason"]
