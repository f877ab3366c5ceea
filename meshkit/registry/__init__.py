"""Registries: the contract, the URL that chooses an engine, and one file per engine."""

from meshkit.registry.base import Lease, Registry
from meshkit.registry.url import RegistryUrl, open_registry

__all__ = ["Lease", "Registry", "RegistryUrl", "open_registry"]
